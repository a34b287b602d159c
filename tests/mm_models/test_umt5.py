"""UMT5 behind our interface, against transformers used directly, on a tiny random release."""

import json
import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from transformers import AutoTokenizer, UMT5EncoderModel

import mm_models
from mm_config.families import wan21, wan22
from mm_config.options.locations import Location, Locations
from mm_config.schema.errors import UserError
from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import Umt5TextEncoderSpec
from mm_config.specs.weights import RandomWeights
from tests.mm_models.weight_files import T2V, values
from tests.tiny_umt5 import spec_of, write_release

WORDS = ["a", "red", "blue", "circle", "square", "moving", "right", "&", "<", ">"]
SPEC = spec_of(WORDS)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release folder with an encoder and a word tokenizer that ends each caption with `</s>`."""
    folder = tmp_path_factory.mktemp("release")
    write_release(folder, WORDS)
    return folder


@pytest.fixture
def locations(release: Path) -> Locations:
    return Locations((Location("tiny-umt5", release, "test"),))


def test_features_equal_the_padded_and_masked_encoding_cut_to_length(
    release: Path, locations: Locations
) -> None:
    captions = ["a red circle moving right", "blue square", ""]
    tokenizer = AutoTokenizer.from_pretrained(release / "tokenizer")
    network = UMT5EncoderModel.from_pretrained(release / "text_encoder").eval()
    padded = tokenizer(captions, padding="max_length", max_length=8, return_tensors="pt")
    with torch.no_grad():
        hidden = network(padded.input_ids, padded.attention_mask).last_hidden_state
    expected = hidden * padded.attention_mask[..., None]
    features = mm_models.build_text_encoder(SPEC, locations=locations).encode(captions)
    assert features.shape == (3, 8, 16) and features.dtype == torch.float32
    assert [int(row.any(-1).sum()) for row in features] == [6, 3, 1]
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


def test_captions_fill_512_rows_and_the_zeros_after_them_take_part(locations: Locations) -> None:
    for family in (wan21.T2V_14B, wan22.T2V_A14B, wan22.TI2V_5B):
        assert isinstance(family.text_encoder, Umt5TextEncoderSpec)
        assert family.text_encoder.max_tokens == 512
    features = mm_models.build_text_encoder(attrs.evolve(SPEC, max_tokens=512), locations=locations).encode(
        ["blue square", ""]
    )
    assert features.shape == (2, 512, 16)
    assert features[0, :3].any(-1).all() and not features[0, 3:].any()
    model = attrs.evolve(T2V, text_dim=16)
    network = mm_models.build(model, "cpu")
    network.load_state_dict(values(model))
    embedded = network.condition_embedder.text_embedder(features)  # type: ignore[union-attr, operator]
    assert embedded[0, 3:].any(-1).all(), "the padding comes before the text MLP, whose biases it then has"
    latents, timestep = torch.ones(1, 4, 1, 4, 4), torch.tensor([500.0])
    padded, cut = (network(latents, timestep, text) for text in (features[:1], features[:1, :3]))
    assert not torch.allclose(padded, cut, atol=1e-3)


def test_features_do_not_depend_on_the_other_captions(locations: Locations) -> None:
    encoder = mm_models.build_text_encoder(SPEC, locations=locations)
    together = encoder.encode(["a red circle moving right", "blue square"])
    assert torch.equal(encoder.encode(["blue square"])[0], together[1])


def test_the_network_runs_in_the_specs_dtype(locations: Locations) -> None:
    narrow = mm_models.build_text_encoder(attrs.evolve(SPEC, dtype=Dtype.BFLOAT16), locations=locations)
    wide = mm_models.build_text_encoder(SPEC, locations=locations)
    features = narrow.encode(["red circle"])
    assert features.dtype == torch.float32
    assert torch.equal(features, features.bfloat16().float())
    torch.testing.assert_close(features, wide.encode(["red circle"]), atol=0.1, rtol=0.1)


def test_words_of_a_vocabulary_may_bear_the_names_of_refused_keys(tmp_path: Path) -> None:
    words = ["auto_map", "_attn_implementation", "trust_remote_code"]
    write_release(tmp_path, words)
    there = Locations((Location("tiny-umt5", tmp_path, "test"),))
    encoder: Any = mm_models.build_text_encoder(spec_of(words), locations=there)
    assert encoder.tokenizer("auto_map trust_remote_code").input_ids == [3, 5, 1]


@pytest.mark.parametrize("dtype", list(Dtype))
def test_each_parameter_has_the_dtype_and_the_values_that_transformers_gives_it(
    dtype: Dtype, release: Path, locations: Locations
) -> None:
    ours: Any = mm_models.build_text_encoder(attrs.evolve(SPEC, dtype=dtype), locations=locations)
    theirs = UMT5EncoderModel.from_pretrained(release / "text_encoder", dtype=getattr(torch, dtype.value))
    wanted = theirs.state_dict()
    assert {name: value.dtype for name, value in ours.network.state_dict().items()} == {
        name: value.dtype for name, value in wanted.items()
    }
    assert all(torch.equal(value, wanted[name]) for name, value in ours.network.state_dict().items())


def test_a_caption_that_does_not_fit_is_named(locations: Locations) -> None:
    encoder = mm_models.build_text_encoder(SPEC, locations=locations)
    with pytest.raises(
        UserError, match=r"max_tokens: 'red red red red red red red red' has 9 tokens, 8 fit; spec"
    ):
        encoder.encode(["blue", " ".join(["red"] * 8)])


def test_a_folder_of_another_architecture_is_refused(locations: Locations) -> None:
    with pytest.raises(UserError) as caught:
        mm_models.build_text_encoder(attrs.evolve(SPEC, text_dim=32, num_layers=3), locations=locations)
    assert [problem.message.split(" in ")[0] for problem in caught.value.problems] == [
        "d_model is 16",
        "num_layers is 2",
    ]


def test_random_weights_are_refused_for_they_have_no_tokenizer() -> None:
    with pytest.raises(
        UserError, match=r"spec\.text_encoder\.weights: needs released weights, got RandomWeights"
    ):
        mm_models.build_text_encoder(attrs.evolve(SPEC, weights=RandomWeights()))


def test_a_release_without_a_tokenizer_is_refused(release: Path, tmp_path: Path) -> None:
    (tmp_path / "text_encoder").symlink_to(release / "text_encoder")
    bare = Locations((Location("tiny-umt5", tmp_path, "test"),))
    with pytest.raises(UserError, match=r"no tokenizer_config\.json in "):
        mm_models.build_text_encoder(SPEC, locations=bare)


@pytest.mark.parametrize("name", ["T5Tokenizer", "PreTrainedTokenizerFast"])
def test_a_tokenizer_without_its_words_is_refused(name: str, release: Path, tmp_path: Path) -> None:
    def problem() -> str:
        with pytest.raises(UserError) as caught:
            mm_models.build_text_encoder(
                SPEC, locations=Locations((Location("tiny-umt5", tmp_path, "test"),))
            )
        return str(caught.value)

    shutil.copytree(release, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "tokenizer/tokenizer_config.json"
    told = json.loads(config.read_text()) | {"tokenizer_class": name}
    config.write_text(json.dumps(told | {"gguf_file": "../../words.gguf"}))
    assert "tokenizer_config.json: holds gguf_file, which is never followed" in problem()
    config.write_text(json.dumps(told))
    (tmp_path / "tokenizer/tokenizer.json").unlink()
    assert "no tokenizer.json or spiece.model or tokenizer.model in " in problem()


def test_tokens_that_the_network_has_no_row_for_are_refused(release: Path, tmp_path: Path) -> None:
    shutil.copytree(release, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "tokenizer/tokenizer.json"
    words = json.loads(file.read_text())
    words["model"]["vocab"]["red"] = 4000
    file.write_text(json.dumps(words))
    there = Locations((Location("tiny-umt5", tmp_path, "test"),))
    encoder = mm_models.build_text_encoder(SPEC, locations=there)
    with pytest.raises(UserError, match=rf"vocab_size: .* token 4000 .* has {SPEC.vocab_size}"):
        encoder.encode(["blue", "red"])


def test_a_tokenizer_that_fails_at_a_caption_is_a_mistake_of_the_user(release: Path, tmp_path: Path) -> None:
    shutil.copytree(release, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "tokenizer/tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": "x"}))
    there = Locations((Location("tiny-umt5", tmp_path, "test"),))
    encoder = mm_models.build_text_encoder(SPEC, locations=there)
    with pytest.raises(UserError, match=r"spec\.text_encoder\.weights: .*tokenizer can't be read: TypeError"):
        encoder.encode(["red"])


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("text_encoder/config.json", None, "text_encoder has no config.json"),
        ("text_encoder/config.json", b"{", "text_encoder/config.json: is no JSON: "),
        ("text_encoder/model.safetensors", None, "text_encoder: holds no weights that are known"),
        ("text_encoder/model.safetensors", b"12345678", "text_encoder/model.safetensors: can't be read: "),
        ("tokenizer/tokenizer.json", b"{", "tokenizer/tokenizer.json: is no JSON: "),
    ],
)
def test_a_broken_release_is_a_mistake_of_the_user(
    file: str, content: bytes | None, problem: str, release: Path, tmp_path: Path
) -> None:
    shutil.copytree(release, tmp_path / "broken")
    (tmp_path / "broken" / file).unlink()
    if content is not None:
        (tmp_path / "broken" / file).write_bytes(content)
    broken = Locations((Location("tiny-umt5", tmp_path / "broken", "test"),))
    with pytest.raises(UserError) as caught:
        mm_models.build_text_encoder(SPEC, locations=broken)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"spec.text_encoder.weights: {tmp_path / 'broken'}/{problem}")
