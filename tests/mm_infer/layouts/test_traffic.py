"""What `mm plan` says that a video moves is what its collectives move, by kind, in messages and in bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_config.options.run_options import RunOptions
from mm_config.planning.costs import collectives
from mm_config.planning.traffic import infer_traffic
from mm_config.specs import Dtype, GuidanceMode, InferSpec, RandomWeights
from mm_infer.layout import laid_out
from mm_infer.loading import loaded
from mm_infer.pipeline import denoised_turns
from mm_infer.requests import Inputs, requests_of
from tests.mm_infer.layouts.cells import layouts, name_of, spec_of
from tests.mm_train.layouts.counting import Moved, counted
from tests.mm_train.layouts.pool import Pool

LAYOUTS = {ranks: {name_of(layout): layout for layout in layouts(ranks)} for ranks in (2, 4)}
QUICK = ["guidance2 fsdp", "ring2", "tensor2", "ulysses2 fsdp"]
WIDE = {"dtype": Dtype.BFLOAT16}


def moved_by(spec: InferSpec) -> Moved:
    """What one video of each group of ranks moves; FSDP2 has met the network before."""
    prompts = Inputs(requests_of(["a red circle moving up"] * spec.runtime.parallel.data))
    with laid_out(spec) as layout:
        pipeline = loaded(spec, RunOptions(), None, layout)
        list(denoised_turns(pipeline, prompts))
        with counted() as moved:
            list(denoised_turns(pipeline, prompts))
    return moved


def planned(spec: InferSpec) -> Moved:
    """What the plan says, with what it takes norms of a caption's keys for: those of tokens."""
    found: Moved = Counter()
    for kind, total in collectives(infer_traffic(spec)).items():
        for name in ("messages", "bytes"):
            found[kind, name] += total[name]
    parallel, passes = spec.runtime.parallel, 4 if spec.runtime.guidance is GuidanceMode.PARALLEL else 7
    share = -(-45 // (parallel.ulysses * parallel.ring))
    apart = 4 * passes * spec.model.num_layers * (spec.text_encoder.max_tokens - share)
    found["all-reduce", "bytes"] += 2 * apart * (parallel.tensor - 1) // parallel.tensor
    return found


def check(pool: tuple[Pool, int], name: str, **more: object) -> None:
    """Holds what every rank moved against the plan."""
    asked, ranks = pool
    spec = spec_of(
        "text",
        LAYOUTS[ranks][name],
        high_noise=RandomWeights(seed=1),
        low_noise=RandomWeights(seed=2),
        **{"runtime.batch_size": 1, **more},
    )
    for moved in asked.ask(spec):
        assert +moved == +planned(spec), name


@pytest.fixture(scope="module", params=[2, 4])
def pool(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Pool, int]]:
    folder: Path = tmp_path_factory.mktemp(f"traffic{request.param}")
    made = Pool(moved_by, folder, request.param)
    yield made, request.param
    made.close()


def test_a_plan_counts_what_the_collectives_of_a_video_move(pool: tuple[Pool, int]) -> None:
    """Of 3 guided steps with two passes each, and one step without."""
    for name in QUICK if pool[1] == 2 else ["guidance2 ulysses2 fsdp"]:
        check(pool, name)


@pytest.mark.slow
def test_so_it_does_in_all_layouts(pool: tuple[Pool, int]) -> None:
    for name, layout in LAYOUTS[pool[1]].items():
        check(pool, name)
        if layout["guidance"] == 1:
            check(pool, name, **{"runtime.guidance": GuidanceMode.SEQUENTIAL})


@pytest.mark.slow
def test_so_it_does_in_half_the_width(pool: tuple[Pool, int]) -> None:
    """Some parameters stay float32, and FSDP2 gathers them as such."""
    for name in LAYOUTS[pool[1]]:
        if "tensor" not in name:
            check(pool, name, **WIDE)
