"""Rows of the FSDP2 and LayerZero YAML files."""

from __future__ import annotations

from mm_config.importing.mindspeed.words import FSDP_DTYPE
from mm_config.importing.rows import Row, dead, derived, mapped, of_kind
from mm_config.importing.values import at_least, optional, switch, whole


def _sharding(value: object) -> int | None:
    # The class that trains Wan turns null into 1, although its documentation says the world size.
    return None if value == "auto" else 1 if value is None else whole(value)


_DENSE = "Wan's two experts are networks of their own; no layer is a mixture"
_COUNT = at_least(0, "is no number of modules", whole)

FSDP: tuple[Row, ...] = of_kind(
    "fsdp2.yaml",
    mapped("sharding_size", "fsdp.shard_size", _sharding, when="fsdp2", default=None),
    mapped("sub_modules_to_wrap", "fsdp.wrap", None, when="fsdp2", default=None),
    mapped("ignored_modules", "fsdp.ignore", None, when="fsdp2"),
    mapped("recompute_modules", "recompute.modules", None, when="fsdp2", default=None),
    mapped("reshard_after_forward", "fsdp.reshard_after_forward", switch, when="fsdp2", default=True),
    mapped("param_dtype", "precision.compute", optional(FSDP_DTYPE), when="fsdp2"),
    mapped("reduce_dtype", "precision.reduce", optional(FSDP_DTYPE), when="fsdp2"),
    mapped("output_dtype", "precision.output", optional(FSDP_DTYPE), when="fsdp2"),
    derived("cast_forward_inputs", "inputs always get the format of the computation", True, when="fsdp2"),
    mapped("offload_to_cpu", "fsdp.offload", switch, when="fsdp2", default=False),
    derived("pin_memory", "what waits in the host's memory is pinned", True, False, when="fsdp2"),
    mapped("num_to_forward_prefetch", "fsdp.forward_prefetch", _COUNT, when="fsdp2", default=0),
    mapped("num_to_backward_prefetch", "fsdp.backward_prefetch", _COUNT, when="fsdp2", default=0),
    derived("align_fsdp_param_groups", "which weights share a unit changes no value", True, False),
    derived("expert_parallel_size", _DENSE, 1),
    dead("reshard_local_experts", _DENSE),
    derived("moe_modules", _DENSE, None, ()),
    dead("use_reentrant", "names one of two implementations of the same recomputation"),
)

_ZERO_3 = "FSDP2 gathers a unit ahead in the backward pass by itself"

LAYERZERO: tuple[Row, ...] = of_kind(
    "layerzero.yaml",
    mapped("zero3_size", "fsdp.shard_size", whole, when="layerzero", default=8),
    derived("transformer_layers", "names classes; the units are the blocks, `blocks.*`", when="layerzero"),
    derived("backward_prefetch", _ZERO_3, "BACKWARD_PRE", "BACKWARD_POST", when="layerzero"),
    derived("forward_prefetch", "FSDP2 gathers the next unit by itself", True, False, when="layerzero"),
    derived("limit_all_gathers", "FSDP2 limits what is gathered by itself", True, False, when="layerzero"),
    mapped("param_dtype", "precision.compute", FSDP_DTYPE, when="layerzero", default="fp16"),
    mapped("reduce_dtype", "precision.reduce", FSDP_DTYPE, when="layerzero", default="fp16"),
    mapped("ignored_modules", "fsdp.ignore", None, when="layerzero"),
    derived("buffer_dtype", "buffers keep their format", None, when="layerzero"),
    derived("param_init_fn", "weights are loaded shard by shard", None, when="layerzero"),
    derived("offload_grads", "gradients stay on the device", False, when="layerzero"),
    derived("ckpt_load_path", "weights are named by --load", None, when="layerzero"),
    derived("autocast_input", "inputs always get the format of the computation", True, when="layerzero"),
    derived("autocast_output", "outputs keep the format of the computation", True, when="layerzero"),
)

SHARDING_ROWS: tuple[Row, ...] = (*FSDP, *LAYERZERO)
