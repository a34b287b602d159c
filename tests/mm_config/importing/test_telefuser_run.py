"""An import ends with a video: the printed command runs over weights that lie as TeleFuser reads them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from torch import Tensor

from mm_config.cli.app import app
from mm_config.cli.main import main
from mm_config.cli.targets import resolve
from mm_config.options.run_options import RunOptions
from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import Umt5TextEncoderSpec, WanAutoencoderSpec
from mm_config.specs.wan import WanTransformerSpec
from mm_config.specs.weights import RandomWeights
from mm_models.autoencoders.wan_names import WAN21
from mm_models.text.umt5_names import UMT5
from mm_models.weights.names import Dialect
from tests import tiny_umt5
from tests.mm_config.importing.telefuser_dumps import W21, dump, release, write
from tests.mm_models.parity import fill
from tests.mm_models.weight_files import write_wan

SIZES: dict[str, dict[str, Any]] = {
    "model": {"hidden_size": 32, "num_attention_heads": 2, "ffn_dim": 48, "num_layers": 1, "text_dim": 16},
    "autoencoder": {"base_dim": 4},
    "text_encoder": {
        "text_dim": 16,
        "vocab_size": 4,
        "num_layers": 1,
        "num_heads": 2,
        "d_kv": 8,
        "d_ff": 24,
    },
}
VIDEO = {"num_frames": 5, "height": 32, "width": 48, "fps": 8, "sampler.steps": 2}


@pytest.mark.slow
def test_the_printed_command_makes_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "Wan2.1-T2V-1.3B"
    _write_release(root)
    stages = {"all.torch_dtype": "torch.float32", "/torch_dtype": "torch.float32", "/device": "cpu"}
    listed = release(str(root), f"{root}/diffusion_pytorch_model.safetensors")
    file = write(dump(W21, listed, stages), tmp_path)
    assert app(["import", "telefuser", str(file), "--out", "videos.py"]) == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("run it")]
    python, *words = shlex.split(line.removeprefix("run it"))
    assert python == "python" and "can't be run" not in printed
    sizes = {f"{part}.{name}": value for part, own in SIZES.items() for name, value in own.items()} | VIDEO
    flags = [word for path, value in sizes.items() for word in (f"--spec.{path}", str(value))]
    outcome = main(resolve("videos.py", RunOptions()), [*words, *flags])
    assert outcome is not None
    (video,) = outcome.run_dir.rglob("*.mp4")
    with av.open(video) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 5
    assert all(frame.std() > 1 for frame in frames)


def _write_release(root: Path) -> None:
    """A release in the original layout, of random weights: what the dump's paths name, and the tokenizer."""
    write_wan(root / "diffusion_pytorch_model.safetensors", WanTransformerSpec(**SIZES["model"]))
    vae = WanAutoencoderSpec(weights=RandomWeights(), **SIZES["autoencoder"])
    text = Umt5TextEncoderSpec(weights=RandomWeights(), dtype=Dtype.FLOAT32, **SIZES["text_encoder"])
    torch.save(_filled(WAN21.shapes(vae), WAN21.dialects[1]), root / "Wan2.1_VAE.pth")
    encoder = _filled(UMT5.shapes(text), UMT5.dialects[1])
    torch.save(encoder, root / "models_t5_umt5-xxl-enc-bf16.pth")
    tiny_umt5.write_release(root / "umt5", ["sunrise"])
    (root / "google").mkdir()
    (root / "umt5" / "tokenizer").rename(root / "google" / "umt5-xxl")


def _filled(shapes: Mapping[str, tuple[int, ...]], dialect: Dialect) -> dict[str, Tensor]:
    return {dialect.theirs(name): fill(shape, name) for name, shape in shapes.items()}
