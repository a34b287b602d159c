"""Collectives of the device `npu`: the backend name `hccl`, carried by gloo over host memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_map

from tests.npu_standin.device import DEVICE, host_view

SINGLE = {
    "all_gather_single": "_allgather_base",
    "reduce_scatter_single": "_reduce_scatter_base",
}
"""Names of PyTorch 2.13, by which FSDP2 calls, and gloo's own."""

COLLECTIVES = ("allgather", "allreduce", "alltoall_base", "broadcast", "gather", "reduce_scatter", "scatter")

CARRIED = {
    **{name: name for name in COLLECTIVES},
    **{name: name for name in SINGLE.values()},
    **SINGLE,
}

REDUCTIONS = (dist.ReduceOp.SUM, dist.ReduceOp.MAX, dist.ReduceOp.MIN, dist.ReduceOp.PRODUCT)
"""What the hardware's library reduces by; averages and scaled sums are not among them."""


class GlooForNpu(dist.ProcessGroup):
    """A process group that hands gloo host views of its tensors, and waits for the result.

    It takes CPU tensors too, since a process group written in Python stands for all of its backends.
    """

    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)  # type: ignore[call-arg]
        gloo: Any = dist.ProcessGroupGloo  # type: ignore[attr-defined]
        self._gloo = gloo(store, rank, size, timeout)
        self._register_backend(torch.device("cpu"), dist.ProcessGroup.BackendType.GLOO, self._gloo)
        self._register_backend(torch.device(DEVICE), dist.ProcessGroup.BackendType.CUSTOM, self._gloo)

    def getBackendName(self) -> str:
        return "hccl"

    def barrier(self, opts: Any = None) -> dist.Work:
        return self._gloo.barrier()

    def allgather_into_tensor_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> dist.Work:
        pairs = list(zip(outputs, inputs, strict=True))
        works = [self._allgather_base(output, one) for output, one in pairs]  # type: ignore[call-arg]
        return works[-1]


def _carried(target: str) -> Callable[..., dist.Work]:
    def collective(self: GlooForNpu, *args: Any, **kwargs: Any) -> dist.Work:
        for one in args:
            op = getattr(one, "reduceOp", None)
            if op is not None and op.op not in REDUCTIONS:
                raise NotImplementedError(f"HCCL does not reduce by {op.op}")
        work = getattr(self._gloo, target)(*tree_map(_host, args), **tree_map(_host, kwargs))
        # The views are only valid as long as the caller's tensors live.
        work.wait()
        return work

    return collective


def _host(x: Any) -> Any:
    return host_view(x) if isinstance(x, torch.Tensor) and x.device.type == DEVICE else x


for _name, _target in CARRIED.items():
    setattr(GlooForNpu, _name, _carried(_target))


class _Over:
    """Work that has been waited for, for which gloo must not be waited again."""

    def wait(self) -> bool:
        return True


def _batch_isend_irecv(self: Any, ops: list[str], tensors: list[torch.Tensor], ranks: list[int]) -> _Over:
    """What torch_npu calls for `dist.batch_isend_irecv`: all begin before one is waited for."""
    begin = {"isend": self.send, "irecv": self.recv}
    works = [begin[op]([_host(one)], rank, 0) for op, one, rank in zip(ops, tensors, ranks, strict=True)]
    for work in works:
        work.wait()
    return _Over()


def register() -> None:
    """Puts the carrier in the place of torch_npu's own backend, whose library does nothing here."""

    def create(options: Any, backend_options: Any) -> GlooForNpu:
        return GlooForNpu(options.store, options.group_rank, options.group_size, options.timeout)

    dist.ProcessGroupGloo.batch_isend_irecv = _batch_isend_irecv  # type: ignore[attr-defined]
    dist.Backend._plugins["HCCL"] = dist.Backend._BackendPlugin(create, True)
