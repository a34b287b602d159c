"""Prompts become the tokens that Wan's own code makes of them.

The cleaned texts and tokens are written by hand from the rules of `wan/modules/tokenizers.py`: encodings are
mended and quotes, ligatures and widths unified (ftfy), HTML escapes are undone twice, white space collapses.
"""

from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from transformers import AutoTokenizer

import mm_models
from mm_config.options.locations import Location, Locations
from mm_config.schema.errors import UserError
from mm_models.text.umt5 import Umt5TextEncoder, clean
from tests.tiny_umt5 import spec_of, write_release

WORDS = ["a", "red", "dog", "'", '"', "s", "&", "<", ">", "café", "fire", "—", "Full", "犬", "ハ", "…"]
A, RED, DOG, QUOTE, DOUBLE, S, AND, LESS, MORE, CAFE, FIRE, DASH, FULL, INU, HA, DOTS = range(3, 19)
END, UNKNOWN = 1, 2

CASES = {
    "plain": ("a red dog", "a red dog", [A, RED, DOG]),
    "spaces around and between": ("  a   red dog ", "a red dog", [A, RED, DOG]),
    "tab and line ends": ("a\tred\r\ndog\n", "a red dog", [A, RED, DOG]),
    "line and paragraph separators": ("a\u2028red\u2029dog", "a red dog", [A, RED, DOG]),
    "no-break space": ("a\u00a0red\u00a0dog", "a red dog", [A, RED, DOG]),
    "ideographic space": ("a\u3000red dog", "a red dog", [A, RED, DOG]),
    "thin space": ("a\u2009red dog", "a red dog", [A, RED, DOG]),
    "curly apostrophe": ("a dog\u2019s", "a dog's", [A, DOG, QUOTE, S]),
    "curly double quotes": ("\u201cred\u201d", '"red"', [DOUBLE, RED, DOUBLE]),
    "low and reversed quotes": ("\u201ared\u201b", "'red'", [QUOTE, RED, QUOTE]),
    "modifier apostrophe": ("dog\u02bcs", "dog's", [DOG, QUOTE, S]),
    "entity": ("a &lt;dog&gt;", "a <dog>", [A, LESS, DOG, MORE]),
    "entity escaped twice": ("a &amp;lt; dog", "a < dog", [A, LESS, DOG]),
    "ampersand escaped three times": ("a &amp;amp;amp; dog", "a & dog", [A, AND, DOG]),
    "entity beside a bracket": ("< &amp;amp; >", "< & >", [LESS, AND, MORE]),
    "no-break space as an entity": ("a&nbsp;red&#160;dog", "a red dog", [A, RED, DOG]),
    "numbered quote entity": ("dog&#39;s", "dog's", [DOG, QUOTE, S]),
    "accent as an entity": ("caf&eacute;", "café", [CAFE]),
    "UTF-8 read as Latin-1": ("caf\u00c3\u00a9", "café", [CAFE]),
    "quote read as Windows-1252": ("dog\u00e2\u20ac\u2122s", "dog's", [DOG, QUOTE, S]),
    "dash read as Windows-1252": ("a \u00e2\u20ac\u201d dog", "a — dog", [A, DASH, DOG]),
    "accent apart from its letter": ("cafe\u0301", "café", [CAFE]),
    "ligature": ("a \ufb01re", "a fire", [A, FIRE]),
    "full-width letters": ("\uff26\uff55\uff4c\uff4c dog", "Full dog", [FULL, DOG]),
    "half-width katakana": ("\uff8a", "ハ", [HA]),
    "control characters": ("a\u0007 red\u0000 dog\u007f", "a red dog", [A, RED, DOG]),
    "colours of a terminal": ("\u001b[31mred\u001b[0m dog", "red dog", [RED, DOG]),
    "byte order mark": ("\ufeffa dog", "a dog", [A, DOG]),
    "next line, which Windows-1252 has as dots": ("a\u0085", "a…", [A, DOTS]),
    "zero-width space, which stays": ("red\u200bdog", "red\u200bdog", [RED, UNKNOWN, DOG]),
    "other scripts and dots, which stay": ("犬 — …", "犬 — …", [INU, DASH, DOTS]),
}


@pytest.fixture(scope="module")
def locations(tmp_path_factory: pytest.TempPathFactory) -> Locations:
    folder = tmp_path_factory.mktemp("release")
    write_release(folder, WORDS)
    return Locations((Location("tiny-umt5", folder, "test"),))


def tokens(encoder: Umt5TextEncoder, prompt: str) -> list[int]:
    """What the encoder's network is given."""
    seen: list[list[int]] = []

    def network(ids: torch.Tensor) -> SimpleNamespace:
        seen.extend(ids.tolist())
        return SimpleNamespace(last_hidden_state=torch.zeros(*ids.shape, encoder.spec.text_dim))

    encoder.network = network
    encoder.encode([prompt])
    return seen[0]


@pytest.mark.parametrize("case", CASES)
def test_a_prompt_becomes_the_text_and_the_tokens_of_wans_cleaning(case: str, locations: Locations) -> None:
    given, cleaned, expected = CASES[case]
    assert clean(given) == cleaned
    encoder = Umt5TextEncoder(spec_of(WORDS), locations=locations)
    assert tokens(encoder, given) == [*expected, END]


def test_every_prompt_is_cleaned_as_diffusers_cleans_it() -> None:
    assert len(CASES) == 31
    assert [clean(given) for given, _, _ in CASES.values()] == [
        prompt_clean(given) for given, _, _ in CASES.values()
    ]


def test_a_long_prompt_is_cut_as_wans_code_and_diffusers_cut_it(locations: Locations) -> None:
    long = "a red dog's fire — red dog — dog"
    cutting = attrs.evolve(spec_of(WORDS), truncate=True)
    found = tokens(Umt5TextEncoder(cutting, locations=locations), long)
    assert found == [A, RED, DOG, QUOTE, S, FIRE, DASH, END]
    tokenizer = AutoTokenizer.from_pretrained(locations.entries[0].path / "tokenizer")
    theirs = tokenizer([long], padding="max_length", max_length=8, truncation=True, add_special_tokens=True)
    assert found == theirs.input_ids[0]
    short = mm_models.build_text_encoder(cutting, locations=locations).encode(["a red dog"])
    whole = mm_models.build_text_encoder(spec_of(WORDS), locations=locations).encode(["a red dog"])
    assert torch.equal(short, whole)


def test_a_long_prompt_is_refused_by_default_with_the_field_that_cuts(locations: Locations) -> None:
    encoder = Umt5TextEncoder(spec_of(WORDS), locations=locations)
    with pytest.raises(UserError) as caught:
        encoder.encode(["a red dog's fire — red"])
    assert str(caught.value) == (
        'spec.text_encoder.max_tokens: "a red dog\'s fire — red" has 9 tokens, 8 fit; '
        "spec.text_encoder.truncate cuts it, as Wan's code and diffusers do"
    )


def test_long_captions_are_told_without_weights(tmp_path: Path) -> None:
    """Whole words and the end: eight tokens fit."""
    write_release(tmp_path, WORDS)
    for weights in (tmp_path / "text_encoder").glob("*.safetensors"):
        weights.unlink()
    (tmp_path / "text_encoder" / "model.safetensors").touch()
    here = Locations((Location("tiny-umt5", tmp_path, "test"),))
    fit, long = ["a red dog's fire,", "犬 " * 7, "a" * 40, "red", ""], ["red " * 8, "&lt; " * 9]
    told = mm_models.too_long(spec_of(WORDS), fit + long, here)
    assert [told[one].partition(";")[0] for one in long] == ["9 tokens, 8 fit", "10 tokens, 8 fit"]
    assert list(told) == long
    assert Umt5TextEncoder.token_counts(spec_of(WORDS), [long[0], "red", *long[1:]], here) == [9, 2, 10]
    assert mm_models.too_long(attrs.evolve(spec_of(WORDS), truncate=True), long, here) == {}
