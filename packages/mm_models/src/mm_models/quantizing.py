"""Linear layers whose matrices are stored with 8 bits, by torchao; products keep the layers' dtype."""

from __future__ import annotations

from torch import nn

from mm_config.planning import quantized_layers
from mm_config.specs import ModelSpec, QuantFormat, QuantizationSpec


def quantize(network: nn.Module, model: ModelSpec, quantization: QuantizationSpec) -> None:
    """Puts 8-bit matrices with float32 scales in the place of those that the spec names.

    The scale of a row, or of a group of its values, takes its largest magnitude to the
    format's: 127.5 of int8, 448 of float8_e4m3fn. Gradients and `load_state_dict` are not served.

    Args:
        network: With its weights and what is merged into them.
        model: The spec that it is built from.
        quantization: What `quantization_refusals` has no problem with.
    """
    # torchao takes seconds to import.
    from torchao.quantization import (  # pyright: ignore[reportMissingImports]
        Float8WeightOnlyConfig,
        Int8WeightOnlyConfig,
        PerGroup,
        PerRow,
        quantize_,
    )

    size = quantization.group_size
    if quantization.format is QuantFormat.FP8:
        config = Float8WeightOnlyConfig()
    else:
        config = Int8WeightOnlyConfig(granularity=PerRow() if size is None else PerGroup(size))
    chosen = quantized_layers(model, quantization)
    quantize_(network, config, lambda _, name: name in chosen)
