"""Forward and backward pass of our Wan transformer against diffusers', same weights and batch.

    python benchmarks/transformer_step.py

The two take turns in one process; the medians of their times are compared. Below 1 ours is faster.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import attrs
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn

import mm_models
from mm_config.families.tiny import TINY
from mm_config.specs.wan import WanTransformerSpec

ROUNDS = 15


@attrs.frozen
class Case:
    """An architecture with the size of its input."""

    name: str
    spec: WanTransformerSpec
    batch: int
    latent_shape: tuple[int, int, int]
    text_tokens: int


def cases() -> tuple[Case, ...]:
    """The demo's network at its batch size, and two blocks of Wan 1.3B's width."""
    tiny = TINY.model
    assert isinstance(tiny, WanTransformerSpec)
    wide = WanTransformerSpec(hidden_size=1536, num_attention_heads=12, ffn_dim=8960, num_layers=2)
    return (
        Case("tiny", tiny, batch=32, latent_shape=(5, 8, 8), text_tokens=8),
        Case("1.3B width, 2 blocks", wide, batch=1, latent_shape=(3, 16, 16), text_tokens=512),
    )


def diffusers_twin(spec: WanTransformerSpec) -> WanTransformer3DModel:
    """diffusers' network of the same architecture."""
    return WanTransformer3DModel(
        patch_size=spec.patch_size,
        num_attention_heads=spec.num_attention_heads,
        attention_head_dim=spec.attention_head_dim,
        in_channels=spec.in_channels,
        out_channels=spec.out_channels,
        text_dim=spec.text_dim,
        freq_dim=spec.freq_dim,
        ffn_dim=spec.ffn_dim,
        num_layers=spec.num_layers,
    )


def step_seconds(network: nn.Module, predict: Callable[[], Tensor]) -> float:
    """One forward and backward pass."""
    network.zero_grad()
    started = time.perf_counter()
    predict().square().mean().backward()
    return time.perf_counter() - started


def ratio(case: Case) -> float:
    """Our median time over diffusers'."""
    ours = mm_models.build(case.spec, device="cpu")
    mm_models.initialize(ours, seed=0)
    theirs = diffusers_twin(case.spec)
    theirs.load_state_dict(ours.state_dict())
    latents = torch.randn(case.batch, case.spec.in_channels, *case.latent_shape)
    timestep = torch.linspace(0, 999, case.batch)
    text = torch.randn(case.batch, case.text_tokens, case.spec.text_dim)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        times[0].append(step_seconds(ours, lambda: ours(latents, timestep, text)))
        times[1].append(step_seconds(theirs, lambda: theirs(latents, timestep, text, return_dict=False)[0]))
    return statistics.median(times[0]) / statistics.median(times[1])


def main() -> None:
    """Prints a line per case."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, median of {ROUNDS}")
    for case in cases():
        print(f"{case.name:24} {ratio(case):.2f} of diffusers' time")


if __name__ == "__main__":
    main()
