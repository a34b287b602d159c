"""What inductor's graphs read and write, counted as they are made; their machine code is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._functorch import config as autograd_config
from torch._inductor import config
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.graph import GraphLowering
from torch._inductor.scheduler import ExternKernelSchedulerNode, NopKernelSchedulerNode


def kernels_of(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Tensor]) -> list[list[int]]:
    """Bytes that each kernel moves, in the forward graph and the backward graph of what is compiled.

    Products and attention, which are not inductor's own kernels, are left out.
    """
    graphs: list[list[int]] = []
    made = GraphLowering.compile_to_module

    def noted(graph: Any) -> Any:
        compiled = made(graph)
        graphs.append([])
        for node in graph.scheduler.nodes:
            if not isinstance(node, (ExternKernelSchedulerNode, NopKernelSchedulerNode)):
                graphs[-1].append(node.get_read_write_buffers_sizes())
        return compiled

    torch._dynamo.reset()
    monkeypatch.setattr(GraphLowering, "compile_to_module", noted)
    monkeypatch.setattr(AsyncCompile, "cpp_pybinding", lambda *_, **__: lambda *_: None)
    with config.patch(fx_graph_cache=False), autograd_config.patch(enable_autograd_cache=False):
        out = run()
        out.backward(torch.ones_like(out))
    torch._dynamo.reset()
    return graphs
