"""Small trainings of adapters beside a network that was trained before."""

from __future__ import annotations

from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from experiments import tiny_high
from mm_config import replace
from mm_config.specs.lora import LoraSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import TrainedBy
from mm_train.results import TrainResult
from tests.mm_train.conftest import SMALL

LORA = LoraSpec(rank=3, alpha=6.0, targets=("blocks.*.attn*.to_{q,v}", "blocks.*.ffn.net.2"))
FEW: dict[str, Any] = {
    "schedule.steps": 2,
    "schedule.warmup_steps": 0,
    "data.batch_size": 4,
    "optim.lr": 1e-2,
}
BASE = replace(tiny_high.SPEC, {**SMALL, **FEW, "name": "adapters_base"})


def small_adapters(small: TrainSpec, **changes: Any) -> TrainSpec:
    """Two steps on four clips; the network is trained first where nobody has."""
    beside = {"lora": LORA, "start_from": TrainedBy(spec=BASE), "runtime.build_missing": True}
    return replace(small, {**FEW, **beside, **changes})


def adapter_file(result: TrainResult) -> dict[str, Tensor]:
    """What a training of adapters has left in its run folder, by diffusers' keys."""
    assert result.adapter is not None
    return load_file(result.adapter / "pytorch_lora_weights.safetensors")
