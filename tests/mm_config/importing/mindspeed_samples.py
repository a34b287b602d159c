"""Legal values of MindSpeed-MM's keys, and some of them at random."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm_config.importing.mindspeed.table import TABLE
from mm_config.importing.rows import Row
from mm_config.importing.verdict import Verdict

OWN_VALUES = frozenset(
    [
        "predictor.model_type",
        "predictor.in_dim",
        "predictor.out_dim",
        "predictor.hidden_size",
        "predictor.ffn_dim",
        "predictor.num_heads",
        "predictor.num_layers",
        "predictor.img_dim",
        "predictor.patch_size",
        "predictor.clip_token_len",
        "task",
        "load_video_features",
        "load_text_features",
        "ae.dtype",
        "ae.i2v_processor.processor_id",
        "predictor.seperated_timestep",
        "predictor.FPDT",
        "dataset_param.dataset_type",
        "ae.tiling_param.tile_size",
        "ae.tiling_param.tile_stride",
        "diffusion.num_train_timesteps",
        "diffusion.sigma_min",
        "diffusion.sigma_max",
        "diffusion.extra_one_step",
        "param_dtype",
        "reduce_dtype",
        "output_dtype",
        "ignored_modules",
    ]
)
"""Keys whose values have to fit others; they are set by hand."""


def samples(row: Row) -> Sequence[Any]:
    """Some legal values of a key: those of `data/mindspeed_samples.json`, else all that its row lets be."""
    return SAMPLES.get(row.kind, {}).get(row.path, row.only)


def read_samples() -> dict[str, dict[str, tuple[Any, ...]]]:
    """Legal values of keys, by kind and path; a list in a file is a tuple, as facts have it."""
    kinds = json.loads((Path(__file__).parent / "data" / "mindspeed_samples.json").read_text("utf-8"))
    return {
        kind: {path: tuple(map(_with_tuples, values)) for path, values in paths.items()}
        for kind, paths in kinds.items()
    }


def _with_tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


SAMPLES = read_samples()


def rows(kind: str, *, without: frozenset[str] = frozenset()) -> list[Row]:
    """The rows of a kind with legal values that fit whatever else is said."""
    refused = (Verdict.REFUSED, Verdict.UNKNOWN)
    return [
        row
        for row in TABLE.rows
        if row.kind == kind and samples(row) and row.verdict not in refused and row.path not in without
    ]


def some(
    draw: random.Random, kind: str, share: float, without: frozenset[str] = OWN_VALUES
) -> dict[str, Any]:
    """Values of some keys of a kind, by path."""
    return {
        row.path: draw.choice(samples(row)) for row in rows(kind, without=without) if draw.random() < share
    }
