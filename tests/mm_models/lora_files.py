"""Adapters with random values, and files of them as other tools write them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import mm_models
from mm_config.schema.errors import UserError
from mm_config.specs.wan import WanTransformerSpec
from mm_models.lora.adapter import Adapter, LowRank
from mm_models.lora.files import read_adapters
from mm_models.seeding import generator
from mm_models.wan.names import WAN
from tests.mm_models.parity import fill
from tests.mm_models.weight_files import T2V

ATTENTION = tuple(
    f"blocks.{block}.{attention}.{layer}"
    for block in range(T2V.num_layers)
    for attention in ("attn1", "attn2")
    for layer in ("to_q", "to_k", "to_v", "to_out.0")
)
FEED_FORWARD = tuple(f"blocks.{block}.ffn.net.{part}" for block in range(3) for part in ("0.proj", "2"))
BLOCKS = ATTENTION + FEED_FORWARD
"""The layers that kohya's tools adapt."""


def network_of(spec: WanTransformerSpec = T2V, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A network with random weights, none of which is zero."""
    network = mm_models.build(spec, device="cpu", dtype=dtype)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(0.2 * fill(tuple(parameter.shape), name))
    return network


def adapter_of(
    names: Iterable[str] = ATTENTION,
    rank: int = 4,
    alpha: float = 6.0,
    dtype: torch.dtype = torch.float32,
    spec: WanTransformerSpec = T2V,
    key: str = "adapter",
) -> Adapter:
    """Random matrices for a network's layers."""
    shapes = spec.parameter_shapes()
    layers: dict[str, LowRank] = {}
    for name in names:
        out, width = shapes[f"{name}.weight"]
        draws = generator(key, name)
        down = torch.randn(rank, width, generator=draws).to(dtype)
        up = torch.randn(out, rank, generator=draws).to(dtype)
        layers[name] = LowRank(down, up, alpha)
    return Adapter(layers)


def halves(adapter: Adapter, prefix: str, down: str, up: str, *, wan: bool = False) -> dict[str, Tensor]:
    """An adapter's matrices under others' keys."""
    tensors: dict[str, Tensor] = {}
    for name, layer in adapter.layers.items():
        theirs = WAN.theirs(name) if wan else name
        theirs = theirs.replace(".", "_") if prefix.endswith("_") else theirs
        tensors[f"{prefix}{theirs}.{down}.weight"] = layer.down
        tensors[f"{prefix}{theirs}.{up}.weight"] = layer.up
    return tensors


def alphas(adapter: Adapter, prefix: str) -> dict[str, Tensor]:
    """An adapter's alphas as tools around the original code store them."""
    return {
        f"{prefix}{(theirs.replace('.', '_') if prefix.endswith('_') else theirs)}.alpha": torch.tensor(
            layer.alpha
        )
        for name, layer in adapter.layers.items()
        for theirs in (WAN.theirs(name),)
    }


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    """A safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata)
    return path


def assert_equal(adapter: Adapter, expected: Adapter) -> None:
    """Layers, matrices, dtypes and scales are equal bit for bit."""
    assert adapter.layers.keys() == expected.layers.keys()
    for name, layer in adapter.layers.items():
        wanted = expected.layers[name]
        for value, other in ((layer.down, wanted.down), (layer.up, wanted.up)):
            assert value.dtype == other.dtype and torch.equal(value, other), name
        assert (layer.alpha, layer.scale) == (wanted.alpha, wanted.scale), name
        assert layer.more.keys() == wanted.more.keys(), name
        assert all(torch.equal(value, wanted.more[part]) for part, value in layer.more.items()), name
    assert adapter.differences.keys() == expected.differences.keys()
    for name, value in adapter.differences.items():
        assert torch.equal(value, expected.differences[name]), name


def message_of(path: Path) -> str:
    """The only problem of an adapter that can't be read."""
    with pytest.raises(UserError) as caught:
        read_adapters(path)
    (problem,) = caught.value.problems
    return str(problem)
