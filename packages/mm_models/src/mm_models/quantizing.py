"""Linear layers whose matrices are stored with 8 bits, by torchao."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mm_config.planning import quantized_layers
from mm_config.schema import Problem, UserError
from mm_config.specs import ModelSpec, QuantFormat, QuantizationSpec
from mm_models.device import multiplies_fp8


def require_quantization(
    quantization: QuantizationSpec | None, place: torch.device, dtype: torch.dtype
) -> None:
    """Products of fp8 are CUDA's, and come out in bfloat16; all else is everywhere.

    Args:
        quantization: What `quantization_refusals` has no problem with; None needs nothing.
        place: Where the networks run.
        dtype: That they compute in.

    Raises:
        UserError: The device or the dtype has no such products.
    """
    if quantization is None or not quantization.dynamic or quantization.format is not QuantFormat.FP8:
        return
    if not multiplies_fp8(place) or dtype is not torch.bfloat16:
        where = f"on {place.type} in {str(dtype).removeprefix('torch.')}"
        message = f"is True, but products of fp8 are not available {where}; they need bfloat16 on CUDA"
        instead = "quantization.format int8, or False for fp8 weights alone"
        raise UserError(
            Problem("spec.quantization.dynamic", f"{message} with a capability of 8.9; choose {instead}")
        )


def quantize(network: nn.Module, model: ModelSpec, quantization: QuantizationSpec) -> None:
    """Puts 8-bit matrices with float32 scales in the place of those that the spec names.

    The scale of a row, or of a group of its values, takes its largest magnitude to the format's: 127.5 of
    int8, 448 of float8_e4m3fn. So does that of each token's inputs, where these are rounded too. Gradients
    and `load_state_dict` are not served.

    Args:
        network: With its weights and what is merged into them.
        model: The spec that it is built from.
        quantization: What `quantization_refusals` has no problem with.
    """
    # torchao takes seconds to import.
    from torchao.quantization import quantize_  # pyright: ignore[reportMissingImports]

    chosen = quantized_layers(model, quantization)
    quantize_(network, _config(quantization), lambda _, name: name in chosen)


def _config(quantization: QuantizationSpec) -> Any:
    """What torchao calls it; its settings of inductor, which would be the whole process's, stay off."""
    from torchao import quantization as torchao  # pyright: ignore[reportMissingImports]

    row = torchao.PerRow()
    match quantization.format, quantization.dynamic:
        case QuantFormat.FP8, False:
            return torchao.Float8WeightOnlyConfig(set_inductor_config=False)
        case QuantFormat.FP8, True:
            return torchao.Float8DynamicActivationFloat8WeightConfig(
                granularity=row, set_inductor_config=False
            )
        case _, False:
            size = quantization.group_size
            by = row if size is None else torchao.PerGroup(size)
            return torchao.Int8WeightOnlyConfig(granularity=by, set_inductor_config=False)
        case _:
            return torchao.Int8DynamicActivationInt8WeightConfig(granularity=row, set_inductor_config=False)
