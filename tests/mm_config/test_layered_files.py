"""A spec in a file by its layers: weights, inference and request apart, and nothing lost."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import tiny
from mm_config import exact_hash, load, replace, spec_hash
from mm_config.schema.errors import UserError
from mm_config.specs.diffusion import SamplerSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.requests import GenerationRequest, Resolution
from mm_config.specs.train import TrainSpec
from mm_config.stored.files import (
    dump,
    dumps,
    from_payload,
    load_with_requests,
    stored_identity,
    to_layers,
    to_payload,
)
from mm_config.stored.layers import layer_hashes
from tests.mm_config.mm_in_process import TINY, mm
from tests.mm_config.strategies import experiments, specs

few = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
FOX = GenerationRequest(prompt="a fox", seed=2**64 - 1, resolution=Resolution.P480, aspect_ratio="16:9")


def names(spec: Any) -> tuple[Any, ...]:
    return spec_hash(spec), exact_hash(spec), layer_hashes(spec), to_payload(spec)


def plain(spec: Any, requests: tuple[GenerationRequest, ...] = ()) -> Any:
    return json.loads(dumps(spec, by_layers=True, requests=requests))


def test_each_field_stands_in_its_layer() -> None:
    """The layers of an inference spec, written by hand: what seed and user call layers 1, 2 and 3."""
    payload = plain(tiny.SPEC, (FOX,))
    assert list(payload) == ["v", "kind", "layers", "requests"]
    assert list(payload["layers"]) == ["model", "inference", "request"]
    model = "model boundary high_noise low_noise autoencoder text_encoder image_encoder distilled loras"
    assert list(payload["layers"]["model"]) == model.split()
    assert list(payload["layers"]["request"]) == ["samples"]
    assert {"sampler", "num_frames", "dtype", "feature_cache", "runtime"} < set(
        payload["layers"]["inference"]
    )
    assert payload["requests"][0]["prompt"] == "a fox" and payload["requests"][0]["seed"] == 2**64 - 1


@pytest.mark.parametrize("spec", experiments().values(), ids=list(experiments()))
def test_every_experiment_comes_back_as_it_was(spec: Any, tmp_path: Path) -> None:
    for file in (tmp_path / "spec.json", tmp_path / "spec.yaml"):
        dump(spec, file, requests=(FOX,))
        loaded, requests = load_with_requests(file)
        assert loaded == load(file) == spec and names(loaded) == names(spec)
        assert requests == (FOX,)


@pytest.mark.parametrize("cls", [InferSpec, TrainSpec, GenerationRequest])
def test_every_spec_comes_back_as_it_was(cls: type[Any]) -> None:
    @given(spec=specs(cls), requests=st.lists(specs(GenerationRequest), max_size=2))
    @few
    def holds(spec: Any, requests: list[GenerationRequest]) -> None:
        payload = plain(spec, tuple(requests))
        loaded = from_payload(payload)
        assert loaded == spec and names(loaded) == names(spec)
        assert plain(loaded, tuple(requests)) == payload
        assert stored_identity(payload).payload_hash == stored_identity(to_payload(spec)).payload_hash

    holds()


def moved(payload: Any, key: str, before: str, after: str) -> None:
    payload["layers"][after][key] = payload["layers"][before].pop(key)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda one: one["layers"].pop("request"), ["layers.request: missing"]),
        (
            lambda one: one["layers"].update(reqest=one["layers"].pop("request")),
            ["layers.reqest: unknown layer; did you mean request?"],
        ),
        (
            lambda one: one["layers"].update(training={}),
            ["layers.training: unknown layer; allowed: model, inference, request"],
        ),
        (
            lambda one: one["layers"]["inference"].update(samplr=one["layers"]["inference"].pop("sampler")),
            ["spec.samplr: unknown key; did you mean sampler?"],
        ),
        (
            lambda one: moved(one, "boundary", "model", "inference"),
            ["layers.inference.boundary: belongs to the layer model"],
        ),
        (
            lambda one: one["layers"]["model"].update(samples=one["layers"]["request"]["samples"]),
            ["layers.model.samples: belongs to the layer request"],
        ),
        (lambda one: one["layers"].update(model=None), ["layers.model: expected a mapping, got None"]),
        (
            lambda one: one.update(layers=[]),
            ["layers: expected a mapping with the keys model, inference, request, got list []"],
        ),
        (
            lambda one: one.update(v=2),
            ["v: the format's version must be 1, got int 2; a newer one needs a newer mm_config"],
        ),
        (lambda one: one.pop("kind"), ["kind: missing"]),
        (lambda one: one.update(spec={}), ["spec: unknown key; allowed: v, kind, layers, requests"]),
        (lambda one: one.update(requests={}), ["requests: expected a list, got dict {}"]),
        (lambda one: one["requests"][0].update(seed=-1), ["requests.0.seed: must be >= 0, got -1"]),
        (
            lambda one: one["requests"][0].update(promt=one["requests"][0].pop("prompt")),
            ["requests.0.promt: unknown key; did you mean prompt?"],
        ),
        (
            lambda one: one["layers"]["inference"]["sampler"].update(steps="20"),
            ["spec.sampler.steps: expected int, got str '20'"],
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_a_line_each(
    damage: Any, expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    payload = plain(tiny.SPEC, (FOX,))
    damage(payload)
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(payload))
    told = mm(capsys, "hash", str(file), status=2).splitlines()
    assert told == [f"{file}: {line}" for line in expected]


def test_a_spec_without_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="SamplerSpec has no layers"):
        dump(SamplerSpec(), tmp_path / "spec.json", by_layers=True)
    with pytest.raises(UserError, match="layers: a sampler spec has no layers"):
        from_payload({"v": 1, "kind": "sampler", "layers": {}})


def test_an_old_file_is_migrated_with_its_layers() -> None:
    """A key that no layer has goes to the class's migration, and fields that came later are neutral."""
    payload = to_layers(tiny.SPEC)
    del payload["layers"]["inference"]["after_decode"]  # pyright: ignore
    assert from_payload(payload) == tiny.SPEC
    payload["layers"]["~schema"] = 7  # pyright: ignore
    with pytest.raises(UserError, match="was written under infer's schema 7, which is newer than 1"):
        from_payload(payload)


def test_mm_show_prints_the_layers_and_every_verb_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.json"
    flags = ("--spec.sampler.steps", "7")
    file.write_text(mm(capsys, "show", TINY, *flags, "--format", "layers"))
    assert list(json.loads(file.read_text())["layers"]) == ["model", "inference", "request"]
    assert load(file) == replace(tiny.SPEC, {"sampler.steps": 7, "name": "tiny"})
    assert mm(capsys, "hash", str(file), "--layers") == mm(capsys, "hash", TINY, *flags, "--layers")
    for words in (("show", "--format", "json"), ("show",), ("plan",)):
        verb, *options = words
        assert mm(capsys, verb, str(file), *options) == mm(capsys, verb, TINY, *flags, *options)
    assert "sampler.steps" in mm(capsys, "diff", TINY, str(file), status=1)


def test_a_page_shows_the_requests_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(tiny.SPEC, tmp_path / "fox.json", requests=(FOX,))
    shown = mm(capsys, "show", str(tmp_path / "fox.json"))
    assert shown.startswith("request\n") and "a fox" in shown
    again = mm(capsys, "show", str(tmp_path / "fox.json"), "--format", "layers")
    assert again == (tmp_path / "fox.json").read_text()
