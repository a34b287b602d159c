"""A two-expert model of a few thousand parameters, once freshly drawn and once as a published release."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import mm_models
from mm_config import replace
from mm_config.families.tiny import TINY
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs.datasets import ShapesScorerSpec, ShapesSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import ModelSpec
from mm_config.specs.requests import SamplesSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights
from mm_models.seeding import generator
from tests.forked_ranks import run_ranks as run_ranks

SMALL = {
    "model.hidden_size": 32,
    "model.num_attention_heads": 2,
    "model.ffn_dim": 48,
    "model.num_layers": 1,
    "sampler.steps": 6,
    "autoencoder.latent_channels": 12,
    "model.in_channels": 12,
    "model.out_channels": 12,
}


@pytest.fixture(scope="session")
def random_spec() -> InferSpec:
    """Both experts freshly drawn: their output layer is zero, so videos are decoded noise."""
    spec = TINY.infer(
        high_noise=RandomWeights(seed=1),
        low_noise=RandomWeights(seed=2),
        num_frames=17,
        height=64,
        width=64,
        fps=8,
        samples=SamplesSpec(prompts=ShapesSpec().captions, seeds=(5,), scorer=ShapesScorerSpec()),
    )
    return replace(spec, {**SMALL, "runtime.batch_size": 16, "runtime.device": "cpu"})


@pytest.fixture(scope="session")
def spec(random_spec: InferSpec) -> InferSpec:
    """Both experts released with an output layer that is not zero, so that every input matters."""
    changes = {
        "high_noise": ReleasedWeights(name="test/tiny", subfolder="transformer"),
        "low_noise": ReleasedWeights(name="test/tiny", subfolder="transformer_2"),
        "samples": SamplesSpec(prompts=random_spec.samples.prompts[:2], seeds=(5, 6)),
        "runtime.batch_size": 3,
    }
    return replace(random_spec, changes)


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory, random_spec: InferSpec) -> Path:
    """The folder of the release `test/tiny`."""
    folder = tmp_path_factory.mktemp("release")
    for seed, name in enumerate(("transformer", "transformer_2")):
        _write_release(random_spec.model, seed, folder / name)
    return folder


def _write_release(model: ModelSpec, seed: int, folder: Path) -> None:
    network = mm_models.build(model, device="cpu")
    mm_models.initialize(network, seed)
    tensors = dict(network.state_dict())
    weight = tensors["proj_out.weight"]
    tensors["proj_out.weight"] = 0.3 * torch.randn(weight.shape, generator=generator(seed, "awake"))
    folder.mkdir()
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")


@pytest.fixture
def options(tmp_path: Path, release: Path) -> RunOptions:
    """Runs in a fresh folder; the release is found."""
    return RunOptions(
        runs_dir=tmp_path / "runs", locations=Locations((Location("test/tiny", release, "the test"),))
    )
