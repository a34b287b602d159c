"""Generation starts from weights of every kind; what is wrong with weights is told before a run begins."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.encoders import Umt5TextEncoderSpec, WanAutoencoderSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.requests import GenerationRequest
from mm_config.specs.wan import WanTransformerSpec
from mm_config.specs.weights import ReleasedWeights
from mm_infer import load, runner
from mm_infer.opening import open_generation
from mm_models.weights.converting import convert

REQUEST = GenerationRequest(prompt="a red circle moving right", seed=1)
FILE = "diffusion_pytorch_model.safetensors"


def latents(spec: InferSpec, options: RunOptions) -> Tensor:
    return load(spec, options=options).denoise([REQUEST])


def located(options: RunOptions, folder: Path) -> RunOptions:
    """The same, with the release in another folder."""
    return attrs.evolve(options, locations=Locations((Location("test/tiny", folder, "the test"),)))


@pytest.mark.parametrize("kind", ["wan", "mindspeed", "dcp"])
def test_latents_are_those_of_the_diffusers_folder(
    kind: str, spec: InferSpec, release: Path, options: RunOptions, tmp_path: Path
):
    model = spec.model
    assert isinstance(model, WanTransformerSpec)
    (tmp_path / "other").mkdir()
    for name in ("transformer", "transformer_2"):
        convert(release / name, tmp_path / "other" / name, kind, spec=model)
    expected = latents(spec, options)
    assert torch.equal(latents(spec, located(options, tmp_path / "other")), expected)
    assert float(expected.std()) > 0.1


def test_a_file_of_a_release_is_enough(
    spec: InferSpec, release: Path, options: RunOptions, tmp_path: Path
) -> None:
    shutil.copytree(release, tmp_path / "files")
    other = tmp_path / "files" / "transformer" / "other.safetensors"
    save_file({"proj_out.weight": torch.ones(1)}, other)
    one = ReleasedWeights(name="test/tiny", subfolder=f"transformer/{FILE}")
    found = latents(replace(spec, "high_noise", one), located(options, tmp_path / "files"))
    assert torch.equal(found, latents(spec, options))
    with pytest.raises(UserError, match=r"spec\.high_noise: .*cut short or is no safetensors file"):
        other.write_bytes(b"")
        broken = ReleasedWeights(name="test/tiny", subfolder="transformer/other.safetensors")
        open_generation(replace(spec, "high_noise", broken), located(options, tmp_path / "files"))


def test_everything_that_is_nowhere_is_told_at_once_and_leaves_no_run(spec: InferSpec, options: RunOptions):
    changes: dict[str, Any] = {
        "low_noise": ReleasedWeights(name="test/other"),
        "autoencoder": WanAutoencoderSpec(weights=ReleasedWeights(name="test/vae"), latent_channels=12),
        "text_encoder": Umt5TextEncoderSpec(
            weights=ReleasedWeights(name="test/tiny", subfolder="text_encoder"),
            text_dim=spec.text_encoder.text_dim,
        ),
    }
    with pytest.raises(UserError) as caught:
        runner.run(replace(spec, changes), options)
    assert [problem.path for problem in caught.value.problems] == [
        "spec.low_noise",
        "spec.autoencoder.weights",
        "spec.text_encoder.weights",
    ]
    assert not options.runs_dir.exists()


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def _quantise(file: Path) -> None:
    tensors = {name: value.clone() for name, value in load_file(file).items()}
    save_file({**tensors, "proj_out.weight": tensors["proj_out.weight"].to(torch.int8)}, file)


def _rename(file: Path) -> None:
    tensors = {name.replace("proj_out", "proj"): value.clone() for name, value in load_file(file).items()}
    save_file(tensors, file)


def _split(file: Path) -> None:
    shutil.copy(file, file.with_name("second.safetensors"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "can't be read: .*; it was cut short"),
        (_quantise, "of a dtype that is not loaded .*: proj_out.weight is int8"),
        (_rename, "2 tensors are missing: proj_out.weight, proj_out.bias"),
        (_split, "2 safetensors files and no index"),
    ],
)
def test_weights_that_can_not_be_loaded_leave_no_run(
    damage: Callable[[Path], None],
    message: str,
    spec: InferSpec,
    release: Path,
    options: RunOptions,
    tmp_path: Path,
):
    shutil.copytree(release, tmp_path / "broken")
    damage(tmp_path / "broken" / "transformer_2" / FILE)
    with pytest.raises(UserError, match=message) as caught:
        runner.run(spec, located(options, tmp_path / "broken"))
    for problem in caught.value.problems:
        assert problem.path == "spec.low_noise"
        assert problem.message.startswith(str(tmp_path / "broken" / "transformer_2"))
    assert not options.runs_dir.exists()
