"""Which modules become FSDP2 units."""

import pytest
import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

import mm_models
from mm_config.errors import UserError
from mm_config.specs.dtype import Dtype
from mm_config.specs.parallel import FsdpSpec
from mm_config.specs.train import PrecisionSpec, TrainSpec
from mm_train.ranks import joined
from mm_train.sharding import shard, unit_names

BFLOAT16 = PrecisionSpec(compute=Dtype.BFLOAT16)
CPU = torch.device("cpu")


def test_a_star_stays_within_one_part_of_a_name(small: TrainSpec) -> None:
    network = mm_models.build(small.model)
    assert unit_names(network, ("blocks.*",)) == ("blocks.0", "blocks.1")
    assert unit_names(network, ("blocks.1.attn?", "condition_embedder")) == (
        "condition_embedder",
        "blocks.1.attn1",
        "blocks.1.attn2",
    )


def test_a_list_of_modules_is_refused_with_the_pattern_that_was_meant(small: TrainSpec) -> None:
    with pytest.raises(UserError, match=r"spec\.fsdp\.wrap: 'blocks' is a list of modules.*'blocks\.\*'"):
        unit_names(mm_models.build(small.model), ("blocks",))


def test_units_are_the_matches_and_the_root_and_keep_float32_shards(small: TrainSpec) -> None:
    network = mm_models.build(small.model)
    names = [name for name, _ in network.named_parameters()]
    with joined(BFLOAT16, CPU):
        shard(network, FsdpSpec(wrap=("blocks.*", "blocks.*.ffn")), BFLOAT16, CPU)
        units = [name for name, module in network.named_modules() if isinstance(module, FSDPModule)]
        assert units == ["", "blocks.0", "blocks.0.ffn", "blocks.1", "blocks.1.ffn"]
        assert [name for name, _ in network.named_parameters()] == names
        for parameter in network.parameters():
            assert isinstance(parameter, DTensor)
            assert parameter.dtype == torch.float32
