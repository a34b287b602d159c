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
from mm_config.schema.identity import spec_hash
from mm_config.specs.data import DataSpec
from mm_config.specs.datasets import ShapesSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Weights
from mm_config.specs.lora import AppliedLoraSpec, LoraSpec
from mm_config.specs.optim import ScheduleSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights, TrainedBy
from mm_config.stored.files import dump, to_payload
from mm_infer.opening import open_generation
from mm_models import Use, check_said, checkpoint
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


def opened_with(spec: InferSpec, lora: Path, tiny: Path) -> None:
    """The same with an adapter of the high-noise expert."""
    adapted = replace(spec, "loras", (AppliedLoraSpec(high_noise=ReleasedWeights(name="own/lora")),))
    entries = (Location("own/lora", lora, "test"), Location("test/tiny", tiny, "test"))
    open_generation(adapted, RunOptions(locations=Locations(entries)))


def write_adapter(run: Path, trained: TrainSpec) -> Path:
    """A checkpoint of a training of adapters."""
    trained = replace(trained, "lora", LoraSpec(rank=1, targets=(TENSOR,)))
    assert trained.lora is not None
    network = mm_models.build(trained.model, "cpu")
    attach_trainable(network, trained.lora)
    tensors = {name: torch.zeros_like(value) for name, value in adapter_parameters(network).items()}
    (run / "checkpoints").mkdir(parents=True)
    dump(trained, run / "spec.json")
    saved = run / "checkpoints/step-00000001"
    checkpoint.save(saved, {"model": tensors}, {"spec": to_payload(trained)})
    return saved


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
    lora = write_adapter(tmp_path / "run", training(spec, Expert.LOW_NOISE))
    with pytest.raises(
        UserError, match=r"spec\.loras\.0\.high_noise: .* was trained as the low-noise expert"
    ):
        opened_with(spec, lora, high.parent)


@pytest.mark.parametrize(
    ("base", "used", "said"),
    [
        (RandomWeights(seed=1), RandomWeights(seed=1), None),
        (RandomWeights(seed=1), ReleasedWeights(name="test/tiny", subfolder="high"), None),
        (
            RandomWeights(seed=1),
            RandomWeights(seed=3),
            "random weights of seed 1, and is added to those of seed 3",
        ),
        (
            ReleasedWeights(name="Wan-AI/Wan2.1-T2V-14B-Diffusers", subfolder="transformer"),
            ReleasedWeights(name="test/tiny", subfolder="high"),
            "'Wan-AI/Wan2.1-T2V-14B-Diffusers/transformer', and is added to one of Wan2.2's two experts",
        ),
    ],
)
def test_adapters_of_another_network_are_refused(
    spec: InferSpec, high: Path, tmp_path: Path, base: Weights, used: Weights, said: str | None
) -> None:
    trained = replace(training(spec, Expert.HIGH_NOISE), "start_from", base)
    lora = write_adapter(tmp_path / "run", trained)
    refused: list[str] = []
    try:
        opened_with(replace(spec, "high_noise", used), lora, high.parent)
    except UserError as error:
        refused = [str(problem) for problem in error.problems if "loras" in problem.path]
    expected = [] if said is None else [f"spec.loras.0.high_noise: {lora}: was trained on {said} here"]
    assert [line for line in refused if "was trained" in line] == expected


def test_an_adapter_of_another_training_is_refused(spec: InferSpec, tmp_path: Path) -> None:
    first, second = (
        replace(training(spec, Expert.HIGH_NOISE), "start_from", RandomWeights(seed=seed)) for seed in (1, 2)
    )
    use = Use(Expert.HIGH_NOISE, spec.boundary, base=TrainedBy(spec=second))
    for made, is_right in ((first, False), (second, True)):
        trained = replace(training(spec, Expert.HIGH_NOISE), "start_from", TrainedBy(spec=made))
        lora = write_adapter(tmp_path / str(is_right), trained)
        if is_right:
            check_said(lora, use)
        else:
            with pytest.raises(
                UserError, match=f"was trained on what the training {spec_hash(first)[:12]} made"
            ):
                check_said(lora, use)


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
