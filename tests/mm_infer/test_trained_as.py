"""Checkpoints of one's own, named by their path, are used as they were trained and as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mm_models
from mm_config import replace
from mm_config.families.tiny import TINY
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.data import DataSpec, ShapesSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.infer import InferSpec
from mm_config.specs.lora import AppliedLoraSpec, LoraSpec
from mm_config.specs.optim import ScheduleSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import ReleasedWeights
from mm_config.stored.files import to_payload
from mm_infer.opening import open_generation
from mm_models import checkpoint
from mm_models.lora.training import adapter_parameters, attach_trainable

TENSOR = "blocks.0.attn1.to_q"


def training(spec: InferSpec, expert: Expert) -> TrainSpec:
    """One whose network is the generation's."""
    data = DataSpec(dataset=ShapesSpec(), batch_size=1, num_frames=17, height=64, width=64, fps=8)
    made = TINY.train(data=data, schedule=ScheduleSpec(steps=1), expert=expert)
    return replace(made, {"model": spec.model, "autoencoder": spec.autoencoder})


def write(folder: Path, trained: TrainSpec) -> Path:
    """A checkpoint as the training's end leaves it."""
    network = mm_models.build(trained.model, "cpu")
    mm_models.initialize(network, 0)
    checkpoint.save(folder, {"model": network.state_dict()}, {"step": 1, "spec": to_payload(trained)})
    return folder


def opened(spec: InferSpec, high: Path, low: Path) -> None:
    """Looks for both experts' weights at these places."""
    entries = (Location("own/high", high, "test"), Location("own/low", low, "test"))
    named = {"high_noise": ReleasedWeights(name="own/high"), "low_noise": ReleasedWeights(name="own/low")}
    open_generation(replace(spec, named), RunOptions(locations=Locations(entries)))


def refusals(spec: InferSpec, high: Path, low: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        opened(spec, high, low)
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def high(spec: InferSpec, tmp_path: Path) -> Path:
    return write(tmp_path / "high", training(spec, Expert.HIGH_NOISE))


@pytest.fixture
def low(spec: InferSpec, tmp_path: Path) -> Path:
    return write(tmp_path / "low", training(spec, Expert.LOW_NOISE))


def test_experts_that_are_swapped_are_refused(spec: InferSpec, high: Path, low: Path) -> None:
    opened(spec, high, low)
    assert refusals(spec, low, high) == [
        f"spec.high_noise: {low}: was trained as the low-noise expert, and is used as the high-noise expert "
        "here",
        f"spec.low_noise: {high}: was trained as the high-noise expert, and is used as the low-noise expert "
        "here",
    ]


def test_experts_of_another_boundary_are_refused(spec: InferSpec, high: Path, low: Path) -> None:
    assert spec.boundary == 0.875
    assert refusals(replace(spec, "boundary", 0.7), high, low) == [
        f"spec.{name}: {path}: was trained with a boundary of 0.875, but spec.boundary is 0.7"
        for name, path in (("high_noise", high), ("low_noise", low))
    ]


def test_a_network_with_other_heads_is_refused(
    spec: InferSpec, high: Path, low: Path, tmp_path: Path
) -> None:
    other = replace(training(spec, Expert.HIGH_NOISE), "model.num_attention_heads", 1)
    assert refusals(spec, write(tmp_path / "other", other), low) == [
        f"spec.high_noise: {tmp_path / 'other'}: num_attention_heads is 1 in the configuration of the "
        "weights, 2 in the spec"
    ]


def test_adapters_of_the_other_expert_are_refused(
    spec: InferSpec, high: Path, low: Path, tmp_path: Path
) -> None:
    trained = replace(training(spec, Expert.LOW_NOISE), "lora", LoraSpec(rank=1, targets=(TENSOR,)))
    assert trained.lora is not None
    network = mm_models.build(trained.model, "cpu")
    attach_trainable(network, trained.lora)
    tensors = {name: torch.zeros_like(value) for name, value in adapter_parameters(network).items()}
    run = tmp_path / "run"
    run.mkdir()
    checkpoint.save(run / "step-00000001", {"model": tensors}, {"spec": to_payload(trained)})
    adapted = replace(spec, "loras", (AppliedLoraSpec(high_noise=ReleasedWeights(name="own/lora")),))
    entries = [
        Location("own/lora", run / "step-00000001", "test"),
        Location("test/tiny", high.parent, "test"),
    ]
    with pytest.raises(
        UserError, match=r"spec\.loras\.0\.high_noise: .* was trained as the low-noise expert"
    ):
        open_generation(adapted, RunOptions(locations=Locations(tuple(entries))))


def test_a_file_that_has_changed_since_it_was_written_is_refused(
    spec: InferSpec, high: Path, low: Path
) -> None:
    opened(spec, high, low)
    (file,) = (high / "model").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-64:] = bytes(64)
    file.write_bytes(content)
    changed = f"{high}: is damaged: model/{file.name} has changed since it was written"
    assert refusals(spec, high, low) == [f"spec.high_noise: {changed}"]
    network = mm_models.build(spec.model, "cpu")
    for load in (mm_models.load, mm_models.check_weights):
        with pytest.raises(UserError) as caught:
            load(network, high)
        assert str(caught.value) == changed
    state = low / checkpoint.STATE
    state.write_text(state.read_text().replace('"step": 1', '"step": 7'))
    assert refusals(spec, high, low)[1].endswith("is damaged: state.json has changed since it was written")
