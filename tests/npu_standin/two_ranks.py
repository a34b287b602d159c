"""What two ranks do in test_ranks.py: `torchrun --nproc-per-node 2 two_ranks.py FOLDER`.

They train on the CPU and on the device, break off and resume, share tokens on both, and carry the trained
state through torch's own distributed checkpoint. What each rank found goes to `FOLDER/rank-<rank>.json`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import attrs
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

import mm_models
from experiments import tiny_high
from mm_config import replace
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.specs.optim import EmaSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.train import TrainSpec
from mm_models import device
from mm_models.ops.choosing import choose
from mm_models.ranks import Ranks, joined
from mm_train import states, train
from mm_train.layout import layout_of
from mm_train.optim import build_optimizer, make_moments, named_moments
from mm_train.parallelize import materialize, parallelize
from tests.mm_train.conftest import SMALL
from tests.npu_standin import guard

STEPS = 5
SHARED = {"parallel.ulysses": 2, "recompute.mode": Recompute.FULL}
RING = {"parallel.ring": 2}
"""Both ranks have the same clips."""


ON_HOST = {
    "fsdp.offload": True,
    "fsdp.ignore": ("condition_embedder",),
    "fsdp.forward_prefetch": 1,
    "recompute.mode": Recompute.FULL,
    "ema": EmaSpec(decay=0.5),
}


def spec_of(name: str, kind: str, **changes: Any) -> TrainSpec:
    wanted = {"name": name, "runtime.device": kind, "schedule.steps": STEPS, "fsdp.wrap": ("blocks.*",)}
    return replace(tiny_high.SPEC, {**SMALL, **wanted, **changes})


def resumed(spec: TrainSpec, options: RunOptions) -> Path:
    """The run folder of a training that stopped on its way and went on."""
    try:
        train(spec, attrs.evolve(options, stop_after=2))
    except StoppedEarly as stopped:
        return train(spec, attrs.evolve(options, resume=str(stopped.run_dir))).run_dir
    raise AssertionError("it did not stop")


def sharded(spec: TrainSpec, npu: torch.device, ranks: Ranks) -> tuple[nn.Module, Optimizer]:
    """A network over both ranks and its optimizer, filled with NaN."""
    network = mm_models.build(spec.model, "meta", torch.float32, choose(npu))
    parallelize(network, spec, layout_of(spec, ranks, npu), npu)
    materialize(network, npu)
    optimizer = build_optimizer(network, spec.optim, npu)
    make_moments(network, optimizer, step=0)
    with torch.no_grad():
        for one in tensors_of(network, optimizer).values():
            one.fill_(torch.nan)
    return network, optimizer


def tensors_of(network: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    return {**network.state_dict(), **named_moments(network, optimizer)}


def hash_of(tensors: dict[str, Tensor]) -> str:
    """Of every value, gathered from both ranks."""
    digest = hashlib.sha256()
    for name, one in tensors.items():
        whole = one.full_tensor() if isinstance(one, DTensor) else one
        digest.update(name.encode() + whole.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def main(folder: Path) -> None:
    npu = device.pick("npu")
    options = RunOptions(runs_dir=folder / "runs")
    spec = spec_of("npu", "npu")
    with joined(npu) as ranks:
        train(spec_of("cpu", "cpu"), options)
        trained = train(spec, options)
        resumed(spec_of("resumed", "npu"), options)
        for kind in ("cpu", "npu"):
            train(spec_of(f"shared-{kind}", kind, **SHARED), options)
            train(spec_of(f"ring-{kind}", kind, **RING), options)
        resumed(spec_of("on host", "npu", **ON_HOST), options)

        network, optimizer = sharded(spec, npu, ranks)
        states.restore(trained.checkpoint, network, optimizer)
        kept = tensors_of(network, optimizer)
        state_dict_saver.save(kept, checkpoint_id=folder / "dcp")
        read = tensors_of(*sharded(spec, npu, ranks))
        before = hash_of(read)
        state_dict_loader.load(read, checkpoint_id=folder / "dcp")

        found: dict[str, Any] = {
            "backend": dist.get_backend(),
            "devices": sorted({str(one.device) for one in kept.values()}),
            "sharded": all(isinstance(one, DTensor) for one in kept.values()),
            "restored": hash_of(kept),
            "empty": before,
            "read": hash_of(read),
            "calls": guard.calls,
        }
        (folder / f"rank-{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
