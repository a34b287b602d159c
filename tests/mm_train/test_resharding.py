"""A state that some ranks wrote in one layout is, on others in another, the same to the bit."""

from __future__ import annotations

import zlib
from pathlib import Path

import attrs
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from mm_config import replace
from mm_config.specs.lora import LoraSpec
from mm_config.specs.optim import EmaSpec
from mm_config.specs.train import TrainSpec
from mm_models import checkpoint
from mm_models.ops.choosing import REFERENCE
from mm_models.ranks import Ranks
from mm_train import states
from mm_train.adapters import build_network
from mm_train.average import average_of
from mm_train.clipping import local_of
from mm_train.layout import layout_of
from mm_train.optim import build_optimizer, make_moments, named_moments
from mm_train.parallelize import materialize, parallelize
from mm_train.states import Groups, TrainState
from tests.forked_ranks import RunRanks

CPU = torch.device("cpu")
LAYOUTS = {
    1: {"one": {}},
    2: {"two": {}},
    4: {"four": {}, "copies": {"fsdp.shard_size": 2}, "matrices": {"parallel.tensor": 2}},
}
"""By the number of ranks."""
ADAPTERS = LoraSpec(rank=3, alpha=6.0, targets=("blocks.*.attn*.to_{q,v}",))
TRAINED = {"whole": {}, "adapters": {"lora": ADAPTERS}}
STATE = TrainState(7, {"digest": "ab", "step": 7, "seed": 3}, 1.5)


@attrs.frozen(eq=False)
class Held:
    """What a checkpoint holds, on this rank."""

    network: nn.Module
    optimizer: Optimizer
    more: Groups

    @property
    def tensors(self) -> dict[str, Tensor]:
        moments = named_moments(self.network, self.optimizer)
        groups = {"model": states.trained_state(self.network), "optimizer": moments, **self.more}
        return {f"{group}/{name}": one for group, named in groups.items() for name, one in named.items()}


def held(spec: TrainSpec, ranks: Ranks) -> Held:
    network, _ = build_network(spec, REFERENCE)
    parallelize(network, spec, layout_of(spec, ranks, CPU), CPU)
    materialize(network, CPU)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.5)
    optimizer = build_optimizer(network, spec.optim, CPU)
    average = average_of(network, EmaSpec())
    assert average is not None
    make_moments(network, optimizer, 1)
    clipping = {"norm": torch.zeros(())}
    return Held(network, optimizer, {"average": average.tensors(), "clipping": clipping})


def expected(name: str, like: Tensor) -> Tensor:
    """Any numbers, other ones for each name: this rank's part of them, as torch divides them."""
    whole = torch.randn(like.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None).to_local()


def _write(rank: int, spec: TrainSpec, folder: Path, trained: str) -> None:
    ranks = Ranks(rank, world := dist.get_world_size() if dist.is_initialized() else 1, grouped=world > 1)
    for layout, fields in LAYOUTS[world].items():
        one = held(replace(spec, {**fields, **TRAINED[trained]}), ranks)
        for name, tensor in one.tensors.items():
            local_of(tensor.detach()).copy_(expected(name, tensor))
        where = folder / layout
        states.save(where, spec, one.network, one.optimizer, STATE, ranks, one.more)


def _read(rank: int, spec: TrainSpec, folder: Path, trained: str) -> None:
    ranks = Ranks(rank, world := dist.get_world_size() if dist.is_initialized() else 1, grouped=world > 1)
    for layout, fields in LAYOUTS[world].items():
        one = held(replace(spec, {**fields, **TRAINED[trained]}), ranks)
        for written in (name for layouts in LAYOUTS.values() for name in layouts):
            for tensor in one.tensors.values():
                local_of(tensor.detach()).fill_(float("nan"))
            where = states.step_folder(folder / written, STATE.step)
            assert states.restore(where, one.network, one.optimizer, one.more) == STATE
            for name, tensor in one.tensors.items():
                found = local_of(tensor.detach())
                assert torch.equal(found, expected(name, tensor)), (written, layout, name)


@pytest.mark.slow
@pytest.mark.parametrize("trained", TRAINED)
def test_a_state_of_any_ranks_is_the_same_on_any_others(
    small: TrainSpec, tmp_path: Path, run_ranks: RunRanks, trained: str
) -> None:
    small = replace(small, "model.num_layers", 1)
    _write(0, small, tmp_path, trained)
    for world in (2, 4):
        run_ranks(_write, small, tmp_path, trained, ranks=world)
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(folders) == 5
    assert all(checkpoint.verify(states.step_folder(folder, STATE.step)) == [] for folder in folders)
    for world in (4, 2):
        run_ranks(_read, small, tmp_path, trained, ranks=world)
    _read(0, small, tmp_path, trained)
