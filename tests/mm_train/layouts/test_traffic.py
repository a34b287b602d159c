"""What `mm plan` says that a step moves is what its collectives move, by kind, in messages and in bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from mm_config import replace
from mm_config.planning.costs import collectives
from mm_config.planning.traffic import train_traffic
from mm_config.specs import MuonSpec, Recompute, TrainSpec
from tests.mm_train.layouts.cells import ADAPTERS, LAYOUTS, Cell
from tests.mm_train.layouts.counting import Moved, moved_in_a_step
from tests.mm_train.layouts.pool import Pool

MORE: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "kept": {"fsdp.reshard_after_forward": False},
    "nearer": {"fsdp.reshard_size": 2},
    "in_pairs": {"fsdp.blocks_per_unit": 2, "model.num_layers": 3},
    "whole_parts": {"fsdp.ignore": ("condition_embedder", "blocks.*.attn1.norm_q")},
    "half_full": {"recompute.modules": ("blocks.0",)},
    "adapters": {"lora": ADAPTERS},
    "frozen": {"frozen": ("patch_embedding.*", "blocks.0.*")},
    "muon": {"optim": MuonSpec(), "fsdp.ignore": ("blocks.0.attn1.to_q",)},
    "muon_adapters": {"optim": MuonSpec(), "lora": ADAPTERS},
}


def spec_of(layout: str, recompute: str = "none", accumulation: int = 1, more: str = "") -> TrainSpec:
    """Of 15 tokens, which no degree divides, and parameters of which some have fewer rows than ranks."""
    cell = Cell(layout, recompute, accumulation, False, "text", (3, 1, 5))
    return replace(cell.spec, MORE[more])


def planned(spec: TrainSpec, ranks: int) -> Moved:
    """What the plan says, without the numbers that the loop agrees on beside the passes."""
    flows = [flow for flow in train_traffic(spec, ranks) if flow.name != "numbers"]
    return Counter(
        {
            (kind, name): total[name]
            for kind, total in collectives(flows).items()
            for name in ("messages", "bytes")
        }
    )


@pytest.fixture(scope="module", params=[2, 4])
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Pool(moved_in_a_step, tmp_path_factory.mktemp(f"traffic{request.param}"), request.param)
    yield made, request.param
    made.close()


SHARED = [name for name in LAYOUTS if "tensor" not in name]
FEW = [
    ("fsdp", "none", 4, "in_pairs"),
    ("hsdp", "full", 1, "whole_parts"),
    ("usp", "full", 4, "half_full"),
    ("fsdp", "none", 1, "muon"),
]
REST = [
    *((layout, mode, 1, "") for layout in SHARED for mode in ("none", "full", "selective")),
    *(("fsdp", "none", 4, more) for more in MORE),
    ("hsdp", "full", 4, "adapters"),
    *((layout, "none", 1, "muon") for layout in SHARED),
]


def check(
    pool: tuple[Pool, int],
    cases: Iterable[tuple[Any, ...]],
    left_out: Callable[[TrainSpec, int], Moved] = lambda spec, ranks: Counter(),
) -> None:
    """Compares what ranks moved, together where they take turns, with the plan, and the number of messages
    with what the profiler saw."""
    asked, ranks = pool
    for case in cases:
        spec = spec_of(*case)
        if ranks % spec.parallel.ranks_per_sample == 0:
            expected, together = planned(spec, ranks), Moved()
            expected.update(left_out(spec, ranks))
            for moved, seen in asked.ask(spec):
                assert seen == sum(count for (_, name), count in moved.items() if name == "messages"), case
                assert isinstance(spec.optim, MuonSpec) or +moved == +expected, case
                together.update(moved)
            assert together == Counter({key: ranks * count for key, count in expected.items()}), case


def test_a_plan_counts_what_the_collectives_move(pool: tuple[Pool, int]) -> None:
    check(pool, FEW)


TENSOR = [
    *((layout, mode, 1, "") for layout in LAYOUTS if "tensor" in layout for mode in ("none", "full")),
    ("tensor2", "selective", 4, ""),
]


def of_captions(spec: TrainSpec, ranks: int) -> Moved:
    """What a plan leaves out of tensor parallelism, as it does not know which modules captions enter: in each
    block the gradient of the caption; norms of the caption's keys it takes for those of tokens."""
    blocks, parallel = spec.model.num_layers, spec.parallel
    length, width = spec.text_encoder.max_tokens, spec.model.hidden_size  # type: ignore[attr-defined]
    taken_for = -(-15 // (parallel.ulysses * parallel.ring))
    norms = 2 + (spec.recompute.mode is not Recompute.NONE)
    share = spec.data.batch_size * parallel.ranks_per_sample // ranks
    number = share // (spec.runtime.micro_batch_size or share)
    size = 4 * share * (length * width + norms * (length - taken_for)) * blocks
    moved = {"messages": blocks * number, "bytes": 2 * size * (parallel.tensor - 1) // parallel.tensor}
    return Counter({("all-reduce", name): count for name, count in moved.items()})


@pytest.mark.slow
def test_of_split_matrices_it_leaves_out_captions_alone(pool: tuple[Pool, int]) -> None:
    check(pool, TENSOR, of_captions)


@pytest.mark.slow
def test_so_it_does_in_all_layouts(pool: tuple[Pool, int]) -> None:
    check(pool, REST)
