"""Spec files: what is written loads back equal, and nothing wrong loads at all."""

import copy
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import tiny, tiny_high
from mm_config import dump, exact_hash, load, replace, spec_hash
from mm_config.schema.decorator import registered_specs, spec
from mm_config.schema.errors import SpecError, UserError
from mm_config.schema.fields import field
from mm_config.specs.datasets import ShapesSpec
from mm_config.specs.family import Family
from mm_config.specs.kinds import DatasetSpec
from mm_config.specs.optim import AdamWSpec
from mm_config.specs.requests import GenerationRequest, SamplesSpec
from mm_config.specs.weights import RandomWeights
from mm_config.stored.files import dumps, from_payload, to_payload
from mm_config.stored.parsing import checked, parse_json, parse_yaml


def refusals(payload: Any) -> dict[str, str]:
    """What is refused by path, without the kinds that other tests of this process have added."""
    with pytest.raises(SpecError) as caught:
        from_payload(payload)
    added = re.compile(r", 'test-[^']*'")
    return {problem.path: added.sub("", problem.message) for problem in caught.value.problems}


def tiny_payload() -> dict[str, Any]:
    return copy.deepcopy(to_payload(tiny.SPEC))


@pytest.mark.parametrize("ending", [".json", ".yaml", ".yml"])
@pytest.mark.parametrize(
    "value", [tiny.SPEC, tiny_high.SPEC, GenerationRequest(prompt="a cat", seed=2**64 - 1)]
)
def test_what_is_dumped_loads_back_equal(value: Any, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"spec{ending}"
    dump(value, file)
    loaded = load(file)
    assert loaded == value
    assert (spec_hash(loaded), exact_hash(loaded)) == (spec_hash(value), exact_hash(value))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_payload_holds_every_field_of_every_role() -> None:
    payload = to_payload(tiny_high.SPEC)
    assert (payload["v"], payload["kind"]) == (1, "train")
    fields: Any = payload["spec"]
    assert fields["name"] == "" and fields["runtime"]["~"] == "train-runtime"
    assert fields["data"]["dataset"] == {
        "~": "shapes-dataset",
        "clips_per_caption": 16,
        "seed": 0,
        "size": 64,
        "num_frames": 17,
        "fps": 8,
        "revision": 1,
        "start": "opposite",
        "caption": "full",
        "colours": ["red", "green", "blue", "yellow"],
    }


def test_the_order_of_keys_does_not_matter() -> None:
    def shuffled(value: Any, order: random.Random) -> Any:
        if isinstance(value, dict):
            items = list(value.items())
            order.shuffle(items)
            return {key: shuffled(item, order) for key, item in items}
        return [shuffled(item, order) for item in value] if isinstance(value, list) else value

    for seed in range(5):
        loaded = from_payload(shuffled(tiny_payload(), random.Random(seed)))
        assert exact_hash(loaded) == exact_hash(tiny.SPEC)


def test_all_problems_come_at_once_with_canonical_paths() -> None:
    payload = tiny_payload()
    fields = payload["spec"]
    fields["model"]["hiden_size"] = fields["model"].pop("hidden_size")
    fields["sampler"] |= {"steps": 12.0, "shift": -1, "solver": "unpc"}
    fields["autoencoder"]["~"] = "dct-autoencode"
    fields["text_encoder"] = {}
    fields["high_noise"]["spec"]["optim"] |= {"lr": "x", "betas": [1, 0.9]}
    fields["samples"]["seeds"] = [1, "2"]
    fields["dtype"] = None
    del fields["fps"]
    payload["version"] = payload.pop("v")
    assert refusals(payload) == {
        "version": "unknown key; allowed: v, kind, spec",
        "v": "missing",
        "spec.model.hiden_size": "unknown key; did you mean hidden_size?",
        "spec.sampler.steps": "expected int, got float 12.0",
        "spec.sampler.shift": "must be >= 0.01, got -1",
        "spec.sampler.solver": "expected one of unipc, euler, dpmpp_2m, got str 'unpc'; did you mean unipc?",
        "spec.autoencoder": "unknown kind str 'dct-autoencode'; did you mean dct-autoencoder? "
        "(allowed: 'dct-autoencoder', 'wan-autoencoder')",
        "spec.text_encoder": "the key '~' that names the kind is missing; "
        "allowed: 'hashed-text-encoder', 'umt5-text-encoder'",
        "spec.high_noise.spec.optim.lr": "expected float, got str 'x'",
        "spec.high_noise.spec.optim.betas.0": "must be < 1, got 1",
        "spec.samples.seeds.1": "expected int, got str '2'",
        "spec.dtype": "expected one of float32, bfloat16, float16, got None",
        "spec.fps": "missing; a file holds every field, the default is 16",
    }


@pytest.mark.parametrize(
    ("payload", "path", "part"),
    [
        (None, "", "expected a mapping"),
        ([], "", "expected a mapping"),
        ({}, "kind", "missing"),
        ({"v": True, "kind": "adamw", "spec": {}}, "v", "must be 1, got bool True"),
        ({"v": 2, "kind": "adamw", "spec": {}}, "v", "must be 1, got int 2; a newer one needs a newer"),
        ({"v": 1, "kind": "adam", "spec": {}}, "kind", "did you mean adamw?"),
        ({"v": 1, "kind": ["adamw"], "spec": {}}, "kind", "unknown kind"),
        ({"v": 1, "kind": "adamw", "spec": []}, "spec", "expected a mapping"),
        ({"v": 1, "kind": "adamw", "spec": {3: 4}}, "spec", "a key must be a string, got int 3"),
        ({"v": 1, "kind": "random-weights", "spec": {"seed": 10**30}}, "spec.seed", "64 bits"),
        (
            {"v": 1, "kind": "random-weights", "spec": {"~schema": 2, "seed": 0}},
            "spec",
            "newer than 1, the newest known",
        ),
        ({"v": 1, "kind": "random-weights", "spec": {"~schema": "1", "seed": 0}}, "spec", "~schema must be"),
        ({"v": 1, "kind": "shapes-scorer", "spec": {"\ud800": 1}}, "spec", "lone surrogate"),
    ],
)
def test_malformed_payloads_are_refused(payload: Any, path: str, part: str) -> None:
    assert part in refusals(payload)[path]


def test_a_field_added_later_is_filled_with_neutral_not_with_the_default() -> None:
    @spec("test-filled")
    class Filled:
        """Grew a field."""

        lr: float = 1.0
        """Of birth."""
        warm: bool = field(default=True, neutral=False)
        """Added later."""

    old = {"v": 1, "kind": "test-filled", "spec": {"lr": 2.0}}
    assert from_payload(old) == Filled(lr=2.0, warm=False)
    assert refusals({"v": 1, "kind": "test-filled", "spec": {}}).keys() == {"spec.lr"}


def test_a_class_of_another_package_is_found_by_its_tag() -> None:
    @spec("test-foreign-dataset")
    class Foreign(DatasetSpec):
        """Defined outside mm_config."""

        shards: int = 3
        """Files."""

    changed = replace(tiny_high.SPEC, "data.dataset", Foreign(shards=5))
    assert "test-foreign-dataset" in registered_specs()
    assert from_payload(to_payload(changed)) == changed


def test_keys_given_twice_are_told_with_all_other_problems(tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    text = dumps(AdamWSpec(lr=3.0)).replace('"lr": 3.0', '"lr": -1.0').replace('"eps"', '"epss"')
    file.write_text(text.replace('"weight_decay"', '"max_grad_norm": 2.0, "weight_decay"'))
    with pytest.raises(SpecError) as caught:
        load(file)
    assert [str(problem) for problem in caught.value.problems] == [
        f"{file}: spec.max_grad_norm: the key is given twice",
        f"{file}: spec.epss: unknown key; did you mean eps?",
        f"{file}: spec.lr: must be > 0, got -1.0",
    ]


def test_a_problem_that_two_checks_find_is_told_once() -> None:
    with pytest.raises(SpecError) as caught:
        from_payload(
            {"v": 1, "kind": "released-weights", "spec": {"name": "\ud800", "revision": "", "subfolder": ""}}
        )
    assert [problem.path for problem in caught.value.problems] == ["spec.name"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused_where_they_stand(number: str, tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(dumps(AdamWSpec()).replace("1e-05", number))
    with pytest.raises(UserError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: spec.lr: must be a finite number")


def test_files_that_cannot_be_read_or_written_name_themselves(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: \xe9")
    wrong_ending = tmp_path / "spec.toml"
    for file, part in (
        (tmp_path / "absent.json", "can't be read: No such file"),
        (latin, "no UTF-8 text (byte 3)"),
        (wrong_ending, "ends in .json, .yaml, .yml"),
    ):
        with pytest.raises(UserError) as caught:
            load(file)
        assert str(caught.value).startswith(f"{file}: ") and part in str(caught.value)
    with pytest.raises(UserError, match="can't be written"):
        dump(AdamWSpec(), tmp_path / "absent" / "spec.json")
    with pytest.raises(UserError, match="ends in"):
        dump(AdamWSpec(), wrong_ending)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    prompts=st.lists(texts | st.sampled_from(["no", "1e-5", "0o7", "~", "=", "<<", "1:2", "\x85", "\ufeff"])),
    seeds=st.lists(st.integers(0, 2**64 - 1), min_size=1),
    shift=st.floats(min_value=0.01, allow_infinity=False),
)
@settings(max_examples=40, deadline=None)
def test_any_values_survive_both_formats(prompts: list[str], seeds: list[int], shift: float) -> None:
    changed = replace(
        tiny.SPEC,
        {
            "samples": SamplesSpec(prompts=tuple(prompts), seeds=tuple(seeds)),
            "high_noise": RandomWeights(),
            "low_noise": None,
            "sampler.shift": shift,
        },
    )
    for parse, text in ((parse_json, dumps(changed, "json")), (parse_yaml, dumps(changed, "yaml"))):
        loaded = from_payload(parse(text))
        assert loaded == changed
        assert exact_hash(loaded) == exact_hash(changed)


@pytest.mark.parametrize("format", ["json", "yaml"])
def test_damaged_text_never_gives_a_traceback(format: Any) -> None:
    parse = parse_json if format == "json" else parse_yaml
    text = dumps(AdamWSpec(), format)
    chance = random.Random(1)
    for _ in range(300):
        place = chance.randrange(len(text))
        damaged = text[:place] + chance.choice(
            ['"', "{", "]", ":", "-", "&", "*", "!", "\n", "\t", "1", "~", "%"]
        )
        damaged += text[place + chance.randrange(3) :]
        try:
            loaded = from_payload(parse(damaged))
        except UserError as error:
            assert error.problems
        else:
            assert checked(parse(damaged)) == (to_payload(loaded), [])


def test_a_family_can_be_stored_too() -> None:
    from mm_config.families.tiny import TINY

    assert isinstance(TINY, Family)
    assert from_payload(json.loads(dumps(TINY))) == TINY
    assert ShapesSpec() != ShapesSpec(seed=1)
