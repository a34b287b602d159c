"""Activation checkpointing changes memory, not numbers."""

from typing import Any

import attrs
import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mm_models
from mm_config import replace
from mm_config.schema.errors import UserError
from mm_config.specs.parallel import Recompute, RecomputeSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.wan import WanTransformerSpec
from mm_models.ops.choosing import Ops, choose
from mm_models.ranks import joined
from mm_train import offloading
from mm_train.layout import layout_of
from mm_train.offloading import Offload
from mm_train.parallelize import parallelize
from mm_train.recompute import recompute

FULL = RecomputeSpec(mode=Recompute.FULL)
SELECTIVE = RecomputeSpec(mode=Recompute.SELECTIVE)
OFFLOADED = tuple(replace(one, "offload", True) for one in (FULL, SELECTIVE))
CPU = torch.device("cpu")
SDPA, SPELT_OUT = choose("cpu"), Ops()
"""Attention as one operation, and as several."""


@pytest.fixture(autouse=True)
def small_tensors_wait_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offloading, "LEAST_BYTES", 1)


def gradients(
    small: TrainSpec, spec: RecomputeSpec, sharded: bool, ops: Ops = SDPA
) -> tuple[dict[str, torch.Tensor], int]:
    """Each parameter's gradient, and how many block passes were computed."""
    network = mm_models.build(small.model, device="cpu", dtype=torch.float32, ops=ops)
    mm_models.initialize(network, seed=1)
    nn.init.normal_(network.get_parameter("proj_out.weight"), generator=torch.Generator().manual_seed(0))
    names = [name for name, _ in network.named_parameters()]
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    for block in network.get_submodule("blocks").children():
        block.get_submodule("ffn").register_forward_hook(count)
    with joined(CPU, sharded=True) as group:
        ranks = attrs.evolve(group, grouped=sharded)
        parallelize(network, replace(small, "recompute", spec), layout_of(small, ranks, CPU), CPU)
        assert isinstance(network, FSDPModule) == sharded
        assert [name for name, _ in network.named_parameters()] == names
        generator = torch.Generator().manual_seed(2)
        latents = torch.randn(2, small.model.in_channels, 2, 4, 4, generator=generator)
        text = torch.randn(2, 8, small.model.text_dim, generator=generator)
        network(latents, torch.tensor([900.0, 100.0]), text).square().mean().backward()
        found = {name: torch.as_tensor(_whole(parameter)) for name, parameter in network.named_parameters()}
    return found, passes


def _whole(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    gradient = parameter.grad
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient  # type: ignore[operator]


@pytest.mark.parametrize(
    ("sharded", "ops", "specs"),
    [
        (False, SDPA, (FULL, SELECTIVE, *OFFLOADED)),
        (False, SPELT_OUT, (SELECTIVE,)),
        (True, SDPA, (FULL, *OFFLOADED)),
    ],
    ids=["one process", "attention spelt out", "sharded"],
)
def test_gradients_are_those_of_a_network_that_keeps_everything(
    small: TrainSpec, sharded: bool, ops: Ops, specs: tuple[RecomputeSpec, ...]
) -> None:
    kept, passes = gradients(small, RecomputeSpec(), sharded, ops)
    assert passes == small.model.num_layers
    for spec in specs:
        again, passes_again = gradients(small, spec, sharded, ops)
        assert passes_again == 2 * small.model.num_layers
        assert kept.keys() == again.keys()
        for name, gradient in kept.items():
            assert torch.equal(gradient, again[name]), (spec, name)
            assert gradient.any(), name


class Made(TorchDispatchMode):
    """Notes the storages of all that operations give."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor):
                self._sizes[StorageWeakRef(one.untyped_storage())] = one.untyped_storage().nbytes()
        return out

    def alive(self, apart: nn.Module) -> int:
        """Bytes of those that are still there, beside a network's parameters."""
        known = {one.untyped_storage()._cdata for one in apart.parameters()}
        sizes = {ref.cdata: size for ref, size in self._sizes.items() if not ref.expired()}
        return sum(size for data, size in sizes.items() if data not in known)


def kept_by_a_layer(small: TrainSpec, spec: RecomputeSpec, ops: Ops) -> float:
    """Bytes that each further layer has kept after a forward pass."""
    sizes: list[int] = []
    for layers in (2, 4):
        model = replace(small.model, "num_layers", layers)
        network = mm_models.build(model, device="cpu", ops=ops)
        mm_models.initialize(network, seed=1)
        offload = Offload(CPU, ahead=1) if spec.offload else None
        recompute(network, spec, offload)
        if offload is not None:
            offload.around(network, [f"blocks.{layer}" for layer in range(layers)])
        latents, text = torch.randn(2, model.in_channels, 2, 4, 4), torch.randn(2, 8, model.text_dim)
        with Made() as made:
            velocity = network(latents, torch.tensor([900.0, 100.0]), text)
        sizes.append(made.alive(network))
        del velocity
    return (sizes[1] - sizes[0]) / 2


def test_a_layer_keeps_its_input_and_when_asked_the_outputs_of_attention(small: TrainSpec) -> None:
    model = small.model
    assert isinstance(model, WanTransformerSpec)
    batch, tokens, width, heads = 2, 2 * 2 * 2, model.hidden_size, model.num_attention_heads
    stream, sums = 4 * batch * tokens * width, 4 * batch * heads * tokens
    assert kept_by_a_layer(small, FULL, SDPA) == stream
    assert kept_by_a_layer(small, SELECTIVE, SDPA) == stream + 2 * (stream + sums)
    assert kept_by_a_layer(small, SELECTIVE, SPELT_OUT) == 3 * stream
    # What waits in the host's memory is no longer where it was made.
    offloaded = [kept_by_a_layer(small, spec, SDPA) for spec in OFFLOADED]
    assert offloaded == [stream, stream + 2 * (stream + sums)]
    everything = kept_by_a_layer(small, RecomputeSpec(), SDPA)
    assert everything > 12 * stream, everything / stream


def test_only_the_matched_modules_are_computed_again(small: TrainSpec) -> None:
    _, passes = gradients(small, replace(FULL, "modules", ("blocks.0",)), sharded=False)
    assert passes == small.model.num_layers + 1


def test_a_list_of_modules_is_refused(small: TrainSpec) -> None:
    network = mm_models.build(small.model, device="meta")
    with pytest.raises(UserError, match=r"spec\.recompute\.modules: 'blocks' is a list"):
        recompute(network, replace(FULL, "modules", ("blocks",)))
