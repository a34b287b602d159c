"""A generation of real parts whose experts and encoders can wait: two experts, UMT5 and Wan's autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors.torch import save_file
from transformers import UMT5Config, UMT5EncoderModel

import mm_models
from mm_config import replace
from mm_config.families.tiny import TINY
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import WanAutoencoderSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.requests import SamplesSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights
from mm_models.seeding import generator
from tests import tiny_umt5

PROMPT = "a red circle"
BLOCKS = 4


def spec_of(width: int = 32, text_width: int = 16, **changes: Any) -> InferSpec:
    """A spec on the CPU, whose experts' widths and text encoder's are given.

    Args:
        width: Of the experts; heads are 16 wide, the feed-forward four times as wide.
        text_width: Of the text encoder.
        changes: Fields by their paths, `__` for each dot.
    """
    words: list[str] = [*PROMPT.split()]
    text = attrs.evolve(
        tiny_umt5.spec_of(words), text_dim=text_width, d_ff=4 * text_width, num_layers=3, max_tokens=8
    )
    autoencoder = WanAutoencoderSpec(
        weights=RandomWeights(seed=1), latent_channels=4, base_dim=8, num_res_blocks=1, dtype=Dtype.FLOAT32
    )
    spec = TINY.infer(
        high_noise=ReleasedWeights(name="test/experts", subfolder="transformer"),
        low_noise=ReleasedWeights(name="test/experts", subfolder="transformer_2"),
        num_frames=5,
        height=32,
        width=32,
        fps=8,
        samples=SamplesSpec(prompts=(PROMPT,)),
    )
    model = {
        "hidden_size": width,
        "num_attention_heads": width // 16,
        "ffn_dim": 4 * width,
        "num_layers": BLOCKS,
        "in_channels": 4,
        "out_channels": 4,
        "patch_size": (1, 2, 2),
        "text_dim": text_width,
    }
    own = {
        **{f"model.{name}": value for name, value in model.items()},
        "autoencoder": autoencoder,
        "text_encoder": text,
        "sampler.steps": 4,
        "runtime.device": "cpu",
    }
    return replace(spec, own | {path.replace("__", "."): value for path, value in changes.items()})


def written(spec: InferSpec, folder: Path) -> RunOptions:
    """Writes all that a spec names, experts in its dtype with output layers that are not zero."""
    tiny_umt5.write_release(folder / "umt5", [*PROMPT.split()])
    text: Any = spec.text_encoder
    torch.manual_seed(0)
    config = UMT5Config(
        vocab_size=text.vocab_size,
        d_model=text.text_dim,
        num_layers=text.num_layers,
        num_heads=text.num_heads,
        d_kv=text.d_kv,
        d_ff=text.d_ff,
    )
    UMT5EncoderModel(config).save_pretrained(folder / "umt5" / "text_encoder")
    for seed, name in enumerate(("transformer", "transformer_2")):
        network = mm_models.build(spec.model, device="cpu", dtype=mm_models.torch_dtype(spec.dtype))
        mm_models.initialize(network, seed)
        weight = network.get_parameter("proj_out.weight")
        with torch.no_grad():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator(seed, "awake")))
        (folder / name).mkdir()
        tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
        save_file(tensors, folder / name / "diffusion_pytorch_model.safetensors")
    return found_in(folder)


def found_in(folder: Path) -> RunOptions:
    """Finds what was written into a folder."""
    places = {"test/experts": folder, "tiny-umt5": folder / "umt5"}
    locations = Locations(tuple(Location(name, place, "the test") for name, place in places.items()))
    return RunOptions(runs_dir=folder / "runs", locations=locations)
