"""How parameters are spread over ranks changes no loss and no gradient."""

from __future__ import annotations

import attrs
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

import mm_models
from mm_config.specs.dtype import Dtype
from mm_config.specs.parallel import FsdpSpec
from mm_config.specs.train import PrecisionSpec
from mm_config.specs.wan import WanTransformerSpec
from mm_models.networks import copy_whole
from mm_models.ranks import joined
from mm_train.clipping import clip_gradients, local_of
from mm_train.parallelize import materialize
from mm_train.sharding import reshard, set_gradient_sync, shard
from tests.forked_ranks import RunRanks, all_ranks
from tests.tiny_wan import TINY_WAN

CPU = torch.device("cpu")
BFLOAT16 = PrecisionSpec(compute=Dtype.BFLOAT16)
MODEL = attrs.evolve(TINY_WAN, num_layers=3)
CLIPS, MAX_NORM = 8, 0.5
INNER = ("blocks.*", "blocks.*.ffn")
WAYS = {
    "two copies, on the host": FsdpSpec(
        shard_size=2, blocks_per_unit=2, forward_prefetch=1, backward_prefetch=1, offload=True
    ),
    "a copy on each rank": FsdpSpec(shard_size=1),
    "nearer between passes": FsdpSpec(wrap=INNER, reshard_size=2, forward_prefetch=2, backward_prefetch=3),
    "one unit": FsdpSpec(blocks_per_unit=5, reshard_size=1),
    "some whole": FsdpSpec(
        ignore=("condition_embedder", "blocks.*.attn?.norm_?"), wrap=("blocks.*.ffn",), reshard_size=2
    ),
    "two copies, some whole": FsdpSpec(ignore=("proj_out", "blocks.1"), shard_size=2, wrap=("blocks.{0,2}",)),
}


def clips() -> tuple[Tensor, Tensor, Tensor]:
    """Latents, timesteps and texts, all different."""
    drawn = torch.Generator().manual_seed(7)
    latents = torch.randn(CLIPS, MODEL.in_channels, 2, 4, 4, generator=drawn)
    text = torch.randn(CLIPS, 3, MODEL.text_dim, generator=drawn)
    return latents, torch.linspace(20, 900, CLIPS), text


def losses(network: nn.Module, places: slice) -> Tensor:
    latents, timesteps, text = (tensor[places] for tensor in clips())
    return network(latents, timesteps, text).square().flatten(1).mean(1)


def filled(network: nn.Module) -> nn.Module:
    materialize(network, CPU)
    mm_models.initialize(network, seed=3)
    # As it is initialized the last layer is zero, and nothing else has a gradient.
    with torch.no_grad():
        weight = network.get_parameter("proj_out.weight")
        copy_whole(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) / 6, weight)
    return network


def of_one_process(model: WanTransformerSpec) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The mean loss, its clipped gradients by torch, and their norm before."""
    network = filled(mm_models.build(model))
    loss = losses(network, slice(None)).mean()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_NORM)
    return loss.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}, norm


def parameters_mesh(fsdp: FsdpSpec) -> DeviceMesh:
    shard_size = fsdp.shard_size or dist.get_world_size()
    sizes = (dist.get_world_size() // shard_size, shard_size, 1)
    return init_device_mesh("cpu", sizes, mesh_dim_names=("copies", "shard", "tensor"))


def _as_one_process(rank: int, ways: dict[str, FsdpSpec]) -> None:
    loss, gradients, norm = of_one_process(MODEL)
    ranks = dist.get_world_size()
    for way, fsdp in ways.items():
        network = mm_models.build(MODEL)
        shard(network, fsdp, PrecisionSpec(), parameters_mesh(fsdp), CPU)
        filled(network)
        total = torch.zeros(())
        for place in range(rank * CLIPS // ranks, (rank + 1) * CLIPS // ranks):
            set_gradient_sync(network, on=(place + 1) % (CLIPS // ranks) == 0)
            own = losses(network, slice(place, place + 1)).sum() / (CLIPS // ranks)
            own.backward()
            total += own.detach()
        dist.all_reduce(total)
        close(way, total / ranks, loss)
        close(f"{way}: norm", clip_gradients(network.parameters(), MAX_NORM), norm)
        for name, parameter in network.named_parameters():
            assert isinstance(parameter.grad, DTensor)
            close(f"{way}: {name}", parameter.grad.full_tensor(), gradients[name])


def close(what: str, found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, msg=lambda why: f"{what}: {why}")


def test_every_way_gives_the_loss_the_norm_and_the_gradients_of_one_process(run_ranks: RunRanks) -> None:
    run_ranks(_as_one_process, WAYS, ranks=4)


def test_two_ranks_do_as_well(run_ranks: RunRanks) -> None:
    run_ranks(_as_one_process, {way: WAYS[way] for way in ("one unit", "some whole")})


def _same_in_bfloat16(rank: int) -> None:
    found = []
    whole = FsdpSpec(
        ignore=("proj_out", "blocks.1", "condition_embedder"), wrap=("blocks.{0,2}",), offload=True
    )
    for fsdp in (FsdpSpec(), whole):
        network = mm_models.build(MODEL)
        shard(network, fsdp, BFLOAT16, parameters_mesh(fsdp), CPU)
        filled(network)
        latents, timesteps, text = (tensor[rank : rank + 1] for tensor in clips())
        out = network(latents.bfloat16(), timesteps, text.bfloat16())
        out.float().square().mean().backward()
        gradients = {name: one.grad.full_tensor() for name, one in network.named_parameters()}  # type: ignore[union-attr]
        found.append({"": out.detach(), **gradients})
    sharded, left = found
    assert sharded[""].dtype is torch.bfloat16
    for name, one in sharded.items():
        assert torch.equal(left[name], one), name


def test_what_stays_whole_is_rounded_as_the_rest_and_equal_to_the_bit(run_ranks: RunRanks) -> None:
    run_ranks(_same_in_bfloat16)


def _parts(rank: int) -> None:
    """What each rank holds of a matrix of 36 rows: between passes, and whole where it is left out."""
    weight, tensor = "blocks.0.attn1.to_q.weight", MODEL.hidden_size
    for fsdp, rows, between in (
        (FsdpSpec(), tensor // 4, tensor // 4),
        (FsdpSpec(shard_size=2), tensor // 2, tensor // 2),
        (FsdpSpec(reshard_size=2), tensor // 4, tensor // 2),
        (FsdpSpec(reshard_size=1), tensor // 4, tensor),
        (FsdpSpec(shard_size=2, ignore=("blocks.*.attn1.to_q",)), tensor, tensor),
    ):
        network = mm_models.build(MODEL)
        wrap = ("blocks.*.attn2",) if fsdp.ignore else fsdp.wrap
        shard(network, attrs.evolve(fsdp, wrap=wrap), PrecisionSpec(), parameters_mesh(fsdp), CPU)
        filled(network)
        assert len(local_of(network.get_parameter(weight))) == rows
        losses(network, slice(rank, rank + 1)).sum()
        assert len(local_of(network.get_parameter(weight))) == between
        reshard(network)
        assert len(local_of(network.get_parameter(weight))) == rows


def test_each_rank_holds_its_part_and_a_nearer_one_between_passes(run_ranks: RunRanks) -> None:
    run_ranks(_parts, ranks=4)


def _gathered(fsdp: FsdpSpec, kind: str) -> list[str]:
    """Which units are gathered ahead, by what FSDP2 tells the profiler, each behind the unit at work."""
    network = mm_models.build(MODEL)
    shard(network, fsdp, PrecisionSpec(), all_ranks(), CPU)
    filled(network)
    with torch.profiler.profile() as told:
        losses(network, slice(0, 1)).sum().backward()
    names = [event.name for event in sorted(told.events() or (), key=lambda event: event.time_range.start)]
    return [name.partition(" for ")[2] for name in names if name.startswith(f"FSDP::{kind}_prefetch")]


def test_units_are_gathered_ahead_in_the_order_of_the_pass() -> None:
    with joined(CPU, sharded=True):
        pairs = FsdpSpec(blocks_per_unit=2, forward_prefetch=2)
        assert _gathered(pairs, "forward") == ["blocks.0, blocks.1", "blocks.2", "blocks.2"]
        inner = FsdpSpec(wrap=INNER, backward_prefetch=1)
        in_turn = [name for block in (2, 1, 0) for name in (f"blocks.{block}", f"blocks.{block}.ffn")]
        assert _gathered(inner, "backward") == in_turn
