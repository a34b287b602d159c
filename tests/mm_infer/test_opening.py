"""A generation is opened once: all that is wrong is told together, and nothing is asked or read again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import save_file

from experiments import tiny, tiny_high
from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.running import runners
from mm_config.schema.errors import UserError
from mm_config.specs.diffusion import Expert
from mm_config.specs.infer import InferSpec
from mm_config.specs.lora import AppliedLoraSpec
from mm_config.specs.requests import GenerationRequest
from mm_config.specs.weights import ReleasedWeights, TrainedBy
from mm_infer import load, opening
from mm_infer.loading import load_pipeline
from mm_infer.opening import open_generation, train_missing
from mm_models import networks
from mm_models.lora.adapter import HIGH_NOISE, LOW_NOISE, Adapter, LowRank
from mm_models.lora.writing import save_adapters

REQUEST = GenerationRequest(prompt="a red circle moving right", seed=1)


@pytest.fixture
def adapters(spec: InferSpec, tmp_path: Path) -> Path:
    """A file with adapters of both experts."""
    out, width = spec.model.parameter_shapes()["proj_out.weight"]
    experts = {
        name: Adapter({"proj_out": LowRank(torch.ones(1, width), 0.01 * torch.ones(out, 1), 1.0)})
        for name in (HIGH_NOISE, LOW_NOISE)
    }
    save_adapters(experts, tmp_path / "both")
    return tmp_path / "both"


def adapted(spec: InferSpec, options: RunOptions, folder: Path) -> tuple[InferSpec, RunOptions]:
    """The spec with the adapters of a folder, one merged and one beside the weights."""
    weights = ReleasedWeights(name="test/both")
    loras = (
        AppliedLoraSpec(high_noise=weights, low_noise=weights),
        AppliedLoraSpec(low_noise=weights, strength=0.5, merge=False),
    )
    entries = (*options.locations.entries, Location("test/both", folder, "the test"))
    return replace(spec, "loras", loras), attrs.evolve(options, locations=Locations(entries))


def test_adapters_are_read_as_it_is_opened_and_never_again(
    spec: InferSpec, options: RunOptions, adapters: Path
):
    asked = adapted(spec, options, adapters)
    expected = load_pipeline(open_generation(*asked)).denoise([REQUEST])
    generation = open_generation(*asked)
    shutil.rmtree(adapters)
    assert torch.equal(load_pipeline(train_missing(generation)).denoise([REQUEST]), expected)
    plain = load_pipeline(open_generation(spec, options)).denoise([REQUEST])
    assert float((plain - expected).abs().max()) > 1e-3


def test_a_run_picks_its_device_and_chooses_its_operations_once(
    spec: InferSpec, options: RunOptions, adapters: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []

    def counted(name: str, function: Any) -> Any:
        def call(*args: Any) -> Any:
            asked.append(name)
            return function(*args)

        return call

    monkeypatch.setattr(opening.device, "pick", counted("device", opening.device.pick))
    for module in (opening, networks):
        monkeypatch.setattr(module, "choose", counted("operations", module.choose))
    runners.run(*adapted(spec, options, adapters))
    assert asked == ["device", "operations"]
    generation = open_generation(spec, options)
    assert generation.device == torch.device("cpu") and generation.dtype == torch.float32
    assert set(generation.weights) == {Expert.HIGH_NOISE, Expert.LOW_NOISE}
    assert all(parameter.is_meta for parameter in generation.network.parameters())


def test_all_that_is_wrong_with_files_is_told_before_a_training_starts(
    options: RunOptions, adapters: Path, tmp_path: Path
):
    save_file({"proj_out.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    entries = (Location("test/both", adapters, "the test"), Location("test/other", tmp_path, "the test"))
    weights = ReleasedWeights(name="test/both")
    building = replace(
        tiny.SPEC,
        {
            "high_noise": TrainedBy(spec=tiny_high.SPEC),
            "low_noise": ReleasedWeights(name="test/other", subfolder="other.safetensors"),
            "loras": (AppliedLoraSpec(high_noise=weights, low_noise=ReleasedWeights(name="test/no")),),
            "runtime.build_missing": True,
        },
    )
    with pytest.raises(UserError) as caught:
        load(building, options=attrs.evolve(options, locations=Locations(entries)))
    paths = list(dict.fromkeys(problem.path for problem in caught.value.problems))
    assert paths == ["spec.low_noise", "spec.loras.0.high_noise", "spec.loras.0.low_noise"]
    assert not options.runs_dir.exists()


def test_what_may_be_trained_is_left_for_later(options: RunOptions):
    generation = open_generation(replace(tiny.SPEC, "runtime.build_missing", True), options)
    assert not generation.weights
    assert not options.runs_dir.exists()
