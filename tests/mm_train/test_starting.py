"""What a training starts from: weights of every kind; whatever is missing is told before a run begins."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

import mm_data
import mm_models
import mm_train
from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.data import Cache
from mm_config.specs.diffusion import Expert
from mm_config.specs.encoders import Umt5TextEncoderSpec, WanAutoencoderSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.wan import WanTransformerSpec
from mm_config.specs.weights import ReleasedWeights
from mm_config.stored.files import to_payload
from mm_models import checkpoint
from mm_models.weights.converting import convert
from mm_train.starting import start_weights


@pytest.fixture
def weights(small: TrainSpec, tmp_path: Path) -> Path:
    """A checkpoint of the small network."""
    network = mm_models.build(small.model, device="cpu")
    mm_models.initialize(network, seed=3)
    checkpoint.save(tmp_path / "step-00000001", {"model": network.state_dict()}, {})
    return tmp_path / "step-00000001"


def released(small: TrainSpec, options: RunOptions, folder: Path) -> tuple[TrainSpec, RunOptions]:
    weights = ReleasedWeights(name="test/start", revision=folder.name)
    spec = replace(small, {"start_from": weights, "schedule.steps": 1})
    found = Locations((Location("test/start", folder, "the test"),))
    # A rate this small leaves the start weights visible in the result.
    return replace(spec, {"optim.lr": 1e-12, "schedule.warmup_steps": 0}), attrs.evolve(
        options, locations=found
    )


@pytest.mark.parametrize("kind", ["wan", "mindspeed"])
def test_a_training_starts_from_what_others_wrote(
    kind: str, small: TrainSpec, options: RunOptions, weights: Path, tmp_path: Path
) -> None:
    assert isinstance(small.model, WanTransformerSpec)
    convert(weights, tmp_path / kind, kind, spec=small.model)
    result = mm_train.train(*released(small, options, tmp_path / kind))
    start, end = (mm_models.build(small.model, device="cpu") for _ in range(2))
    mm_models.load(start, weights)
    mm_models.load(end, result.checkpoint)
    for ours, theirs in zip(start.parameters(), end.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)


def test_weights_of_another_expert_or_boundary_are_told(
    small: TrainSpec, options: RunOptions, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = replace(small, {"expert": Expert.HIGH_NOISE, "diffusion.boundary": 0.875, "data.cache": Cache.NONE})
    network = mm_models.build(small.model, device="cpu")
    mm_models.initialize(network, seed=3)
    for changes, told in (
        ({}, []),
        (
            {"expert": Expert.LOW_NOISE},
            ["was trained as the low-noise expert, and is used as the high-noise expert here"],
        ),
        (
            {"diffusion.boundary": 0.9},
            ["was trained with a boundary of 0.9, but spec.diffusion.boundary is 0.875"],
        ),
    ):
        saved = weights.parent / f"step-{len(changes):04}{len(str(told)):04}"
        checkpoint.save(saved, {"model": network.state_dict()}, {"spec": to_payload(replace(two, changes))})
        spec, located = released(two, options, saved)
        dataset = mm_data.prepare(spec.data.dataset, cache_dir=located.cache_dir)
        assert start_weights(spec, located, dataset, network) == saved
        lines = capsys.readouterr().out.splitlines()
        said = [line for line in lines if line.startswith("spec.start_from")]
        assert said == [f"spec.start_from: {saved} {line}" for line in told]


def runs_of(options: RunOptions, spec: TrainSpec) -> list[Path]:
    return list((options.runs_dir / str(spec.name)).glob("*"))


def test_weights_of_another_network_leave_no_run(
    small: TrainSpec, options: RunOptions, weights: Path
) -> None:
    spec, located = released(replace(small, "model.num_layers", 3), options, weights)
    with pytest.raises(UserError) as caught:
        mm_train.train(spec, located)
    missing, cause = caught.value.problems
    assert (missing.path, cause.path) == ("spec.start_from", "spec.start_from")
    assert missing.message.startswith(f"{weights}: 27 tensors are missing: blocks.2.scale_shift_table, ")
    assert cause.message.endswith(
        ": likely cause: these are weights of another network: num_layers 2 instead of 3"
    )
    assert runs_of(options, spec) == []


def test_everything_that_is_nowhere_is_told_at_once_and_leaves_no_run(
    small: TrainSpec, options: RunOptions
) -> None:
    changes: dict[str, Any] = {
        "start_from": ReleasedWeights(name="test/start"),
        "autoencoder": WanAutoencoderSpec(
            weights=ReleasedWeights(name="test/vae"), latent_channels=small.autoencoder.latent_channels
        ),
        "text_encoder": Umt5TextEncoderSpec(
            weights=ReleasedWeights(name="test/text"), text_dim=small.text_encoder.text_dim
        ),
    }
    spec = replace(small, changes)
    with pytest.raises(UserError) as caught:
        mm_train.train(spec, options)
    assert [problem.path for problem in caught.value.problems] == [
        "spec.autoencoder.weights",
        "spec.text_encoder.weights",
        "spec.start_from",
    ]
    assert all("no location is named" in problem.message for problem in caught.value.problems)
    assert runs_of(options, spec) == []
