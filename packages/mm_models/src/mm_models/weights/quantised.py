"""Weights in 8-bit floats: multiplied by the scales that lie beside them, or taken as they are.

The same product, `weight * scale`, is published under three names. `scale_weight` (with an empty tensor
`scaled_fp8` that says so) is ComfyUI's and Kijai's, one number for a whole weight; `weight_scale` is
LightX2V's and compressed-tensors', one for a whole weight or one per row; `weight_scale_inv` is DeepSeek's,
one per block of 128 x 128, and despite its name a factor as well. What the scale's shape means is told by the
weight's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from mm_config.schema import Problem, UserError
from mm_models.naming import first_names
from mm_models.weights.tensors import Piece, Region, StoredTensor

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_SCALES = ("scale_weight", "weight_scale", "weight_scale_inv")
_BESIDE = ("scaled_fp8", "scale_input", "input_scale", "comfy_quant")
"""The mark of scaled files, and what only computations in 8 bits use: scales of activations, notes."""
_BLOCK = 128
_BUFFER_VALUES = 2**22


def dequantised(
    tensors: Mapping[str, StoredTensor], path: Path
) -> tuple[dict[str, StoredTensor], tuple[str, ...]]:
    """Weights with their scales carried out, and the names of what is no weight then.

    Products are formed in float32 when a part of a weight is read, so nothing is held in memory; a scale that
    is not finite is refused then.

    Raises:
        UserError: A scale belongs to no 8-bit weight or has a shape or dtype that nothing explains, or some
            weights have scales and others lack them.
    """
    named = {name: name.rpartition(".") for name in tensors}
    scales = {f"{stem}{dot}weight": name for name, (stem, dot, leaf) in named.items() if leaf in _SCALES}
    beside = [name for name, (_, _, leaf) in named.items() if leaf in _BESIDE]
    narrow = [name for name, tensor in tensors.items() if tensor.dtype in FLOAT8 and name not in beside]
    is_scaled = bool(scales) or any(named[name][2] == "scaled_fp8" for name in beside)
    problems = [
        Problem(str(path), f"{scale} is a scale of {weight}, which is no tensor of 8-bit floats here")
        for weight, scale in scales.items()
        if weight not in narrow
    ]
    if is_scaled and (bare := [name for name in narrow if name not in scales]):
        lacking = f"{len(bare)} tensors of 8-bit floats lack the scales that others have"
        problems.append(Problem(str(path), f"{lacking}: {first_names(bare)}"))
    found: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        if name in beside or name in scales.values():
            continue
        if name in narrow and name in scales:
            factor = tensors[scales[name]]
            if (block := _block(tensor, factor)) is None:
                stored = f"{factor.shape} of {_short(factor.dtype)}"
                problems.append(
                    Problem(str(path), f"{scales[name]} is {stored}: no known scale of {tensor.shape}")
                )
            else:
                found[name] = _product(
                    tensor, factor, block, Problem(str(path), f"{scales[name]} is not finite")
                )
        elif name in narrow:
            how = f"of {_short(tensor.dtype)} without scales, taken as they are"
            found[name] = StoredTensor(tensor.shape, tensor.dtype, tensor.pieces, how)
        else:
            found[name] = tensor
    if problems:
        raise UserError(problems)
    return found, tuple(sorted((*beside, *scales.values())))


def quantised_lines(tensors: Mapping[str, StoredTensor]) -> Iterator[str]:
    """What is to be said of weights that were stored in fewer bits than they are read in."""
    counted = Counter(tensor.quantised for tensor in tensors.values() if tensor.quantised)
    yield from (f"{count:,} tensor{'' if count == 1 else 's'} {how}" for how, count in counted.items())


def _block(weight: StoredTensor, scale: StoredTensor) -> tuple[int, ...] | None:
    """How many values of each axis share a scale; None where the scale's shape tells nothing known."""
    shape, found = weight.shape, scale.shape
    if scale.dtype not in (torch.float32, torch.bfloat16, torch.float16) or not shape:
        return None
    if math.prod(found) == 1:
        return shape
    rows, *rest = shape
    if found in ((rows,), (rows, *(1 for _ in rest))):
        return (1, *rest)
    if found == tuple(math.ceil(size / _BLOCK) for size in shape):
        return (_BLOCK,) * len(shape)
    return None


def _product(
    weight: StoredTensor, scale: StoredTensor, block: tuple[int, ...], unsound: Problem
) -> StoredTensor:
    blocks = tuple(math.ceil(size / own) for size, own in zip(weight.shape, block, strict=True))
    rows_at_once = max(1, _BUFFER_VALUES // max(1, math.prod(weight.shape[1:])))

    def copy(region: Region, target: Tensor) -> None:
        if not target.numel():
            return
        factors = scale.read().float().reshape(blocks)
        if not bool(factors.isfinite().all()):
            raise UserError(unsound)
        start = region[0].start
        for rows in target.split(rows_at_once):
            part = (slice(start, start + len(rows)), *region[1:])
            values = torch.empty(rows.shape, dtype=weight.dtype)
            weight.copy(part, values)
            rows.copy_(values.float() * _factors_of(part, factors, block))
            start += len(rows)

    piece = Piece((0,) * len(weight.shape), weight.shape, copy, weight.place)
    how = f"of {_short(weight.dtype)}, multiplied by their scales"
    return StoredTensor(weight.shape, torch.float32, (piece,), how)


def _factors_of(part: Region, factors: Tensor, block: tuple[int, ...]) -> Tensor:
    """The factor of each value of a part; an axis that shares one is left to broadcasting."""
    for axis, (wanted, own) in enumerate(zip(part, block, strict=True)):
        if factors.shape[axis] > 1:
            factors = factors.index_select(axis, torch.arange(wanted.start, wanted.stop) // own)
    return factors


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
