"""The code on the page about weights runs, and what it says of locations is so."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import tiny_high, wan22_high, wan22_t2v
from mm_config import diff
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.rules import check
from mm_config.running.trained_by import resolve_weights
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.wan import WanTransformerSpec
from mm_config.specs.weights import ReleasedWeights
from mm_models import checkpoint
from mm_models.weights.opening import open_weights
from tests.mm_models.lora_files import adapter_of, halves, write
from tests.mm_models.weight_files import T2V, values, write_diffusers, write_wan

PAGE = (Path(__file__).parents[2] / "docs" / "weights.md").read_text("utf-8")
TRAINING, GENERATION, ENCODERS, WITH_ADAPTER, IN_PYTHON, TRAINED = re.findall(
    r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
)


def ran(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    exec(block, names)
    return names


def test_its_training_starts_from_the_weights_that_it_names() -> None:
    made = ran(TRAINING)["SPEC"]
    assert isinstance(made, TrainSpec)
    check(made, world_size=8)
    assert made.start_from == ReleasedWeights(name="my/high")
    assert diff(wan22_high.SPEC, made)


def test_its_generation_has_two_experts_of_ones_own() -> None:
    made = ran(GENERATION)["SPEC"]
    assert isinstance(made, InferSpec)
    check(made)
    assert made.high_noise == ReleasedWeights(name="my/high")
    assert made.low_noise == ReleasedWeights(name="my/low")
    assert made.model == wan22_t2v.SPEC.model


def test_its_encoders_are_files_of_an_original_release() -> None:
    made = ran(ENCODERS)["ORIGINAL"]
    files = {"text_encoder": "models_t5_umt5-xxl-enc-bf16.pth", "autoencoder": "Wan2.1_VAE.pth"}
    for part, file in files.items():
        weights = getattr(made, part).weights
        assert weights == ReleasedWeights(name="Wan-AI/Wan2.1-T2V-14B", subfolder=file)


def test_its_generation_with_an_adapter_is_sound() -> None:
    made = ran(WITH_ADAPTER)["SPEC"]
    assert isinstance(made, InferSpec)
    check(made)
    assert [lora.strength for lora in made.loras] == [1.0]


def a_folder(path: Path) -> None:
    write_diffusers(path, T2V)


def a_file(path: Path) -> None:
    write_wan(path, T2V)


def a_checkpoint(path: Path) -> None:
    path.parent.mkdir(parents=True)
    checkpoint.save(path, {"model": values(T2V)}, {})


@pytest.mark.parametrize(
    ("place", "make"),
    [
        ("folder", a_folder),
        ("w.safetensors", a_file),
        ("w.pth", a_file),
        ("run/checkpoints/step-00000450", a_checkpoint),
    ],
)
def test_a_location_is_a_folder_a_file_or_a_checkpoint(
    place: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / place)
    table = Locations((Location("my/high", tmp_path / place, "--location"),))
    options = RunOptions(runs_dir=tmp_path / "runs", locations=table)
    found = resolve_weights(ReleasedWeights(name="my/high"), options, build_missing=False)
    assert isinstance(found, Path)
    assert open_weights(found).tensors.keys() == T2V.parameter_shapes().keys()


def test_its_functions_of_adapters_run_as_they_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_high.SPEC.model
    assert isinstance(model, WanTransformerSpec)
    write_wan(tmp_path / "weights" / "w.safetensors", model)
    adapter = adapter_of(["blocks.0.attn1.to_q"], spec=model)
    write(tmp_path / "lora.safetensors", halves(adapter, "transformer.", "lora_A", "lora_B"))
    monkeypatch.chdir(tmp_path)
    names = ran(IN_PYTHON)
    assert names["adapter"].layers.keys() == adapter.layers.keys()
    stored = values(model)
    for name, parameter in names["network"].named_parameters():
        assert torch.equal(parameter, stored[name]), name
    exec(TRAINED, names)
    saved = names["read_adapters"](Path("trained")).of(names["Expert"].HIGH_NOISE)
    assert {name.rpartition(".")[2] for name in saved.layers} == {"to_q", "to_v"}
    assert len(names["trained"]) == 2 * len(saved.layers)
    assert all(layer.down.any() and not layer.up.any() for layer in saved.layers.values())


def test_the_functions_of_adapters_are_imported_when_they_are_used() -> None:
    program = (
        "import sys, mm_models.lora; assert 'torch' not in sys.modules\n"
        "from mm_models.lora import *\n"
        "assert {'Addition', 'attach', 'merge', 'read_adapters', 'unmerge'} <= globals().keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
