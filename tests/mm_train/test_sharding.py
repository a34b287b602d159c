"""Which modules become FSDP2 units."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

import mm_models
from mm_config.schema.errors import UserError
from mm_config.specs.dtype import Dtype
from mm_config.specs.parallel import FsdpSpec
from mm_config.specs.train import PrecisionSpec, TrainSpec
from mm_models.ranks import joined
from mm_train.matching import matching_modules
from mm_train.parallelize import materialize
from mm_train.sharding import shard
from tests.forked_ranks import all_ranks

BFLOAT16 = PrecisionSpec(compute=Dtype.BFLOAT16)
CPU = torch.device("cpu")
WRAP = "spec.fsdp.wrap"


def test_a_star_stays_within_one_part_of_a_name(small: TrainSpec) -> None:
    network = mm_models.build(small.model)
    assert matching_modules(network, ("blocks.*",), WRAP) == ("blocks.0", "blocks.1")
    assert matching_modules(network, ("blocks.1.attn?", "condition_embedder"), WRAP) == (
        "condition_embedder",
        "blocks.1.attn1",
        "blocks.1.attn2",
    )


def test_a_list_of_modules_is_refused_with_the_pattern_that_was_meant(small: TrainSpec) -> None:
    with pytest.raises(UserError, match=r"spec\.fsdp\.wrap: 'blocks' is a list of modules.*'blocks\.\*'"):
        matching_modules(mm_models.build(small.model), ("blocks",), WRAP)


def test_units_are_the_matches_and_the_root_and_keep_float32_shards(small: TrainSpec) -> None:
    network = mm_models.build(small.model)
    names = [name for name, _ in network.named_parameters()]
    with joined(CPU, sharded=True):
        shard(network, FsdpSpec(wrap=("blocks.*", "blocks.*.ffn")), BFLOAT16, all_ranks(), CPU)
        units = [name for name, module in network.named_modules() if isinstance(module, FSDPModule)]
        assert units == ["", "blocks.0", "blocks.0.ffn", "blocks.1", "blocks.1.ffn"]
        assert [name for name, _ in network.named_parameters()] == names
        for parameter in network.parameters():
            assert isinstance(parameter, DTensor)
            assert parameter.dtype == torch.float32


def _divided_gradient(rank: int, store: str, small: TrainSpec) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        network = mm_models.build(small.model)
        shard(network, FsdpSpec(), PrecisionSpec(), all_ranks(), CPU)
        materialize(network, CPU)
        for unit in network.modules():
            if isinstance(unit, FSDPModule):
                unit.set_gradient_divide_factor(4.0)
        mm_models.initialize(network, seed=0)
        latents = torch.zeros(1, small.model.in_channels, 1, 2, 2)
        network(latents, torch.zeros(1), torch.zeros(1, 3, small.model.text_dim)).sum().backward()
        gradient = network.get_parameter("proj_out.bias").grad
        assert isinstance(gradient, DTensor)
        # Each rank has a 1 for each value of a patch.
        assert gradient.full_tensor().unique().tolist() == [(1 + 1) / 4]
    finally:
        dist.destroy_process_group()


def test_gradients_are_summed_and_then_divided_because_gloo_and_hccl_can_not_multiply(
    small: TrainSpec, tmp_path: Path
) -> None:
    """A factor other than the number of ranks needs a reduction that multiplies, or a division after it."""
    args = (str(tmp_path / "store"), small)
    mp.start_processes(_divided_gradient, args=args, nprocs=2, start_method="fork")  # type: ignore[attr-defined]
