"""What TeleFuser's keys, or their absence, are in a spec: a table by hand, held against imports."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import pytest

from mm_config.importing.telefuser.importer import import_dump
from mm_config.schema.evolve import get
from tests.mm_config.importing.telefuser_dumps import W21, W22, dump, release, write

ONE = "/m/Wan2.1-T2V-1.3B"
TWO = "/m/Wan2.2-T2V-A14B"
SINGLE = (W21, release(ONE, f"{ONE}/diffusion_pytorch_model.safetensors"))
EXPERTS = (W22, release(TWO, f"{TWO}/high_noise_model", f"{TWO}/low_noise_model"))

# Keys that are not of the root stand in layer2_inference_config; `dits` is each denoising network.
# Columns: their key, their value or - where the dump lacks it, our path, our value.
PAIRS = """
/device                          | "npu:1"                 | runtime.device                  | "npu"
/device                          | -                       | runtime.device                  | "cuda"
sample_solver                    | "unipc"                 | sampler.solver                  | "unipc"
sample_solver                    | "unipc"                 | sampler.sigmas                  | "wan_official"
sample_solver                    | "euler"                 | sampler.sigmas                  | "full_range"
sample_solver                    | -                       | sampler.solver                  | "euler"
enable_vae_parallel              | true                    | runtime.parallel.autoencoder    | true
enable_vae_parallel              | true                    | autoencoder.tiling              | true
enable_vae_parallel              | -                       | autoencoder.tiling              | false
dits.torch_dtype                 | "float16"               | dtype                           | "float16"
dits.torch_dtype                 | -                       | dtype                           | "bfloat16"
vae_config.torch_dtype           | -                       | autoencoder.dtype               | "bfloat16"
text_encoding_config.torch_dtype | "float32"               | text_encoder.dtype              | "float32"
dits.attention_config.attn_impl  | "FLASH_ATTN_2"          | runtime.attention               | "flash_2"
dits.attention_config.attn_impl  | -                       | runtime.attention               | "sdpa"
dits.attention_config.attn_impl  | "TORCH_CUDNN"           | runtime.attention               | "cudnn"
dits.quant_config.enabled        | true                    | quantization.format             | "fp8"
dits.quant_config.enabled        | true                    | quantization.skip.0             | "proj_out"
dits.quant_config.enabled        | -                       | quantization                    | null
dits.feature_cache_config.enabled| true                    | feature_cache.derivatives       | 1
dits.feature_cache_config.enabled| -                       | feature_cache                   | null
dits.parallel_config.cfg_degree  | 2                       | runtime.guidance                | "parallel"
dits.parallel_config.cfg_degree  | -                       | runtime.guidance                | "sequential"
dits.parallel_config.timeout     | 90                      | runtime.parallel.timeout_seconds| 90
dits.parallel_config.timeout     | -                       | runtime.parallel.timeout_seconds| 600
dits.offload_config.offload_type | "MODEL_CPU_OFFLOAD"     | runtime.residency.experts       | "swap"
dits.offload_config.offload_type | "ASYNC_CPU_OFFLOAD"     | runtime.residency.experts       | "layerwise"
dits.offload_config.offload_type | "ASYNC_CPU_OFFLOAD"     | runtime.residency.prefetch      | 1
dits.offload_config.offload_type | "SEQUENTIAL_CPU_OFFLOAD"| runtime.residency.prefetch      | 0
dits.offload_config.offload_type | -                       | runtime.residency.experts       | "resident"
dits.compile_config.enabled      | true                    | runtime.compile.mode            | "default"
dits.compile_config.enabled      | true                    | runtime.compile.fullgraph       | false
dits.compile_config.enabled      | true                    | runtime.compile.dynamic         | false
dits.compile_config.enabled      | -                       | runtime.compile.enabled         | false
dits.lora_configs                | [{"path": "/l/f.bin"}]  | loras.0.strength                | 1.0
"""
ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in PAIRS.strip().splitlines()]


@pytest.mark.parametrize(("key", "theirs", "path", "ours"), ROWS, ids=lambda cell: cell)
def test_a_key_or_its_absence_is_the_value_by_hand(
    key: str, theirs: str, path: str, ours: str, tmp_path: Path
) -> None:
    more = {"enable_denoising_parallel": True, "dits.parallel_config.sp_ulysses_degree": 2}
    for pipeline, listed in (SINGLE, EXPERTS):
        given = {} if theirs == "-" else {key: json.loads(theirs)}
        root = dump(pipeline, listed, more | given)
        if theirs == "-":
            _take_out(root, key)
        found = get(import_dump(write(root, tmp_path))[0], path.removesuffix(".0"))
        found = found[0] if path.endswith(".0") else found
        assert (found.value if isinstance(found, enum.Enum) else found) == json.loads(ours)


def _take_out(root: dict[str, Any], key: str) -> None:
    """Leaves a key out of a dump, wherever it stands."""
    first, *rest = key.split(".")
    own = root["layer2_inference_config"]
    for stage in [one for one in own if one.startswith("dit_")] if first == "dits" else [first]:
        at: Any = root if key.startswith("/") else own
        *parents, last = [stage.removeprefix("/"), *rest]
        for name in parents:
            at = at[name]
        del at[last]
