"""The cells of the matrix: which layouts are held against one process, with what else each is crossed.

Four ranks train in each cell. Its clips have a number of tokens that no degree divides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import attrs

from experiments import tiny_high
from mm_config import replace
from mm_config.specs import (
    AttentionImpl,
    ClipImageEncoderSpec,
    CompileBackend,
    Conditioning,
    Expert,
    LoraSpec,
    Recompute,
    ReleasedWeights,
    ShapesSpec,
    TrainSpec,
)

RANKS = 4
STEP = 3
"""The step of the schedule that is looked at, from 0: its number is a key of all that is drawn."""

LAYOUTS: Mapping[str, Mapping[str, int]] = {
    "fsdp": {},
    "hsdp": {"fsdp.shard_size": 2},
    "ulysses2": {"parallel.ulysses": 2},
    "ulysses4": {"parallel.ulysses": 4},
    "ring2": {"parallel.ring": 2},
    "ring4": {"parallel.ring": 4},
    "usp": {"parallel.ring": 2, "parallel.ulysses": 2},
    "tensor2": {"parallel.tensor": 2},
    "tensor2-ulysses2": {"parallel.tensor": 2, "parallel.ulysses": 2},
    "tensor2-ring2": {"parallel.tensor": 2, "parallel.ring": 2},
}
"""By name: the fields that make it."""
ADAPTERS = LoraSpec(
    rank=2,
    alpha=3.0,
    targets=("blocks.*.attn*.to_q", "blocks.*.attn*.to_k", "blocks.*.attn*.to_out.0", "blocks.*.ffn.net.2"),
)
GIVEN: Mapping[str, Mapping[str, Any]] = {
    "text": {},
    # A clean frame has a timestep of its own, so that tokens differ; half of the clips have none.
    "timesteps": {
        "model.conditioning": Conditioning.CLEAN_FIRST_FRAME,
        "expert": Expert.SINGLE,
        "diffusion.boundary": None,
        "data.frame_dropout": 0.5,
    },
    "frame": {
        "model.conditioning": Conditioning.FIRST_FRAME,
        "model.in_channels": 9 + 4 + 9,
        "model.image_dim": 16,
        "model.image_positions": 5,
        "expert": Expert.LOW_NOISE,
        "image_encoder": ClipImageEncoderSpec(
            weights=ReleasedWeights(name="clip"),
            image_dim=16,
            image_size=28,
            patch_size=14,
            num_layers=2,
            num_heads=2,
            d_ff=24,
        ),
    },
}
"""What the network is given besides noise and caption."""
AXES: Mapping[str, Sequence[Any]] = {
    "layout": tuple(LAYOUTS),
    "recompute": tuple(mode.value for mode in Recompute),
    "accumulation": (1, 4),
    "adapters": (False, True),
    "given": tuple(GIVEN),
}
GRIDS = (
    (3, 1, 1),
    (5, 1, 1),
    (3, 1, 3),
    (3, 1, 5),
    (3, 1, 7),
    (5, 1, 5),
    (3, 3, 3),
    (3, 1, 11),
    (5, 1, 7),
    (3, 3, 5),
    (3, 3, 7),
    (3, 5, 5),
)
"""Tokens along frames, height and width; on four ranks some have nothing but padding of the first ones."""
MORE: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "compiled": {"compile.enabled": True, "compile.backend": CompileBackend.AOT_EAGER},
    "spelt_out": {"runtime.attention": AttentionImpl.REFERENCE},
    "in_copies": {"fsdp.shard_size": 1},
    "in_pairs": {"fsdp.blocks_per_unit": 2, "fsdp.forward_prefetch": 1, "fsdp.backward_prefetch": 1},
    "whole_parts": {"fsdp.ignore": ("condition_embedder", "blocks.*.attn1.norm_q")},
    "nearer": {"fsdp.reshard_size": 2},
    "offloaded": {"fsdp.offload": True, "recompute.offload": True},
    "frozen": {"frozen": ("patch_embedding.*", "condition_embedder.*", "blocks.*.attn2.*")},
}
"""What is in a few cells besides."""


@attrs.frozen
class Cell:
    """One training of the matrix."""

    layout: str
    recompute: str
    accumulation: int
    adapters: bool
    given: str
    grid: tuple[int, int, int]
    """Tokens along frames, height and width."""
    more: str = ""
    """One of `MORE`."""

    def __str__(self) -> str:
        trained = "adapters" if self.adapters else "all"
        words = (self.layout, self.recompute, f"in{self.accumulation}", trained, self.given)
        return "-".join((*words, self.more) if self.more else words)

    @property
    def spec(self) -> TrainSpec:
        """What is trained: a network of four heads whose gradients are always clipped."""
        frames, height, width = self.grid
        small = {
            "model.hidden_size": 32,
            "model.num_attention_heads": 4,
            "model.ffn_dim": 64,
            "model.freq_dim": 32,
            "model.num_layers": 2,
            "model.patch_size": (1, 2, 2),
            "data.dataset": ShapesSpec(clips_per_caption=1),
            "data.num_frames": 4 * frames - 3,
            "data.height": 16 * height,
            "data.width": 16 * width,
            "data.caption_dropout": 0.3,
            "optim.max_grad_norm": 0.05,
            "recompute.mode": Recompute(self.recompute),
            "runtime.device": "cpu",
            "lora": ADAPTERS if self.adapters else None,
            **GIVEN[self.given],
            **LAYOUTS[self.layout],
            **MORE[self.more],
        }
        spec = replace(tiny_high.SPEC, small)
        share = 4 if self.accumulation == 4 else 2
        batch = share * RANKS // spec.parallel.ranks_per_sample
        sizes = {"data.batch_size": batch, "runtime.micro_batch_size": share // self.accumulation}
        return replace(spec, sizes)


def every() -> list[Cell]:
    """All cells, in the order of the axes; the grids are dealt round, each round from the next one on."""
    combined = (dict(zip(AXES, values, strict=True)) for values in product(*AXES.values()))
    count = len(GRIDS)
    return [
        Cell(**values, grid=GRIDS[(place + place // count) % count]) for place, values in enumerate(combined)
    ]


def all_pairs(cells: Iterable[Cell]) -> list[Cell]:
    """Cells that together have each pair of values of two axes, chosen one after the other: the one with most
    pairs that none before it has, the first of several."""
    left = {cell: pairs_of(cell) for cell in cells}
    chosen: list[Cell] = []
    while any(left.values()):
        best = max(left, key=lambda cell: len(left[cell]))
        chosen.append(best)
        covered = pairs_of(best)
        left = {cell: pairs - covered for cell, pairs in left.items()}
    return chosen


def pairs_of(cell: Cell) -> set[tuple[tuple[str, Any], tuple[str, Any]]]:
    """The pairs of values of different axes that a cell has."""
    return set(combinations(((axis, getattr(cell, axis)) for axis in AXES), 2))


def named(name: str, more: str = "") -> Cell:
    """A cell by its name, with one of `MORE`."""
    return attrs.evolve(next(cell for cell in every() if str(cell) == name), more=more)


COMPILED_CELLS = tuple(
    named(name, "compiled")
    for name in (
        "fsdp-none-in1-all-text",
        "hsdp-full-in4-adapters-frame",
        "ulysses4-none-in1-all-timesteps",
        "ring2-full-in1-all-frame",
        "usp-selective-in4-all-text",
        "tensor2-none-in1-all-frame",
    )
)
"""Cells whose blocks are compiled."""
FURTHER_CELLS = (
    named("fsdp-full-in1-all-frame", "offloaded"),
    named("ulysses4-selective-in1-all-text", "spelt_out"),
    named("usp-selective-in1-all-frame", "offloaded"),
    named("ulysses2-none-in1-all-timesteps", "in_copies"),
    named("tensor2-full-in4-all-frame", "in_copies"),
    named("tensor2-ring2-none-in1-adapters-text", "in_copies"),
    named("ring2-full-in1-all-frame", "in_pairs"),
    named("tensor2-none-in4-all-timesteps", "in_pairs"),
    named("ulysses4-none-in4-all-timesteps", "whole_parts"),
    named("tensor2-ulysses2-full-in1-all-frame", "whole_parts"),
    named("ring4-none-in1-all-frame", "nearer"),
    named("usp-full-in1-all-timesteps", "frozen"),
    named("tensor2-ulysses2-none-in1-all-frame", "frozen"),
)
"""Layouts beside other ways to shard, offload, freeze and attend."""
