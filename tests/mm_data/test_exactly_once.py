"""Every clip comes once an epoch, whatever is killed and goes on, on however many ranks and threads.

What is expected is counted here from the lists of clips alone: it asks nothing of the plan.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import attrs
import numpy as np
import pytest

from mm_config.specs import BucketSpec, DataSpec, MixturePart, MixtureSpec, ShapesSpec
from mm_data import Asked, Dataset, Measured, Plan, Record, Shape, make_plan, resume_step, stream

SHAPES = (Shape(1, 64, 64), Shape(9, 64, 128), Shape(17, 128, 64))


@attrs.frozen
class Case:
    """A dataset with what is asked of it."""

    data: DataSpec
    dataset: Dataset
    plan: Plan
    clips: dict[tuple[Shape, int], set[int]]
    """Places in the dataset by the shape and by the mixture's part."""
    weights: tuple[int, ...]
    """Of the parts."""


def drawn(rng: np.random.Generator) -> Case:
    """A mixture of one to three datasets in one to three buckets with batch sizes of their own."""
    shapes = SHAPES[: int(rng.integers(1, 4))]
    weights = tuple(int(rng.integers(1, 5)) for _ in range(rng.integers(1, 4)))
    clips: dict[tuple[Shape, int], set[int]] = defaultdict(set)
    records: list[Record] = []
    parts: list[Dataset] = []
    for part in range(len(weights)):
        first = len(records)
        for _ in range(int(rng.integers(5, 20))):
            shape = shapes[int(rng.integers(len(shapes)))]
            clips[shape, part].add(len(records))
            fps = Fraction(8 if shape.num_frames > 1 else 0)
            measured = Measured(shape.num_frames, fps, shape.height, shape.width)
            records.append(Record(Path(f"/{part}/{len(records)}.mp4"), str(len(records)), measured=measured))
        parts.append(Dataset(Path(f"/{part}"), tuple(records[first:]), f"part {part}"))
    buckets = tuple(
        BucketSpec(
            num_frames=shape.num_frames,
            height=shape.height,
            width=shape.width,
            batch_size=int(rng.choice([4, 8, 12])),
        )
        for shape in shapes
    )
    mixed = len(weights) > 1
    mixture = MixtureSpec(
        parts=tuple(MixturePart(dataset=ShapesSpec(), weight=float(weight)) for weight in weights)
    )
    data = DataSpec(
        dataset=mixture if mixed else ShapesSpec(),
        batch_size=4,
        buckets=buckets,
        fps=8.0,
        min_num_frames=None,
    )
    dataset = Dataset(Path("/"), tuple(records), "key", parts=tuple(parts) if mixed else ())
    return Case(data, dataset, make_plan(data, dataset, 3), dict(clips), weights)


def trained(case: Case, rng: np.random.Generator, steps: int) -> Iterator[tuple[Shape, list[int]]]:
    """Shape and clips of each global batch, of processes that are killed between two saved states."""
    state: dict[str, object] | None = None
    while (step := 0 if state is None else resume(case, state)) < steps:
        saved = min(step + int(rng.integers(1, 8)), steps)
        killed = min(saved + int(rng.integers(0, 3)), steps)
        world_size, workers = int(rng.choice([1, 2, 4])), int(rng.choice([0, 0, 0, 1, 3]))
        shares: list[list[tuple[Shape, tuple[int, ...]]]] = []
        states: set[str] = set()
        for rank in range(world_size):
            with stream(
                case.data,
                case.dataset,
                seed=3,
                plan=case.plan,
                rank=rank,
                world_size=world_size,
                start_step=step,
                end_step=steps,
                load=index_of,
                workers=workers,
            ) as batches:
                taken: list[tuple[Shape, tuple[int, ...]]] = []
                for _ in range(step, killed):
                    batch = next(batches)
                    assert batch.items == batch.indices
                    taken.append((batch.shape, batch.indices))
                    if batch.step + 1 == saved:
                        states.add(json.dumps(batches.state()))
            shares.append(taken[: saved - step])
        assert len(states) == 1, "ranks differ in what they save"
        state = json.loads(states.pop())
        for one in zip(*shares, strict=True):
            (shape,) = {shape for shape, _ in one}
            yield shape, [index for _, indices in one for index in indices]


def index_of(asked: Asked) -> int:
    return asked.index


def resume(case: Case, state: dict[str, object]) -> int:
    return resume_step(state, case.data, case.dataset, seed=3, plan=case.plan)


def check(seed: int) -> None:
    """Takes 40 steps of a case.

    A pass has as many batches of a bucket as its clips, and what the passes before left over, fill. So after
    every pass the clips of a part in a bucket came equally often, but for the rest of the last batch.
    """
    rng = np.random.default_rng(seed)
    case = drawn(rng)
    sizes = {
        Shape(bucket.num_frames, bucket.height, bucket.width): bucket.batch_size or 0
        for bucket in case.data.buckets
    }
    clips_of = [
        sum(len(c) for (_, p), c in case.clips.items() if p == part) for part in range(len(case.weights))
    ]
    # A part's share of all samples is its weight; it is split over the buckets as the part's clips are.
    share = {
        (shape, part): Fraction(case.weights[part] * len(clips), sum(case.weights) * clips_of[part])
        for (shape, part), clips in case.clips.items()
    }
    per_pass = {
        shape: sum(one for (s, _), one in share.items() if s == shape) * sum(clips_of)
        for shape in {shape for shape, _ in share}
    }
    ends: dict[int, dict[Shape, int]] = {}
    for passes in range(1, 30):
        whole = {shape: int(passes * samples / sizes[shape]) for shape, samples in per_pass.items()}
        ends[sum(whole.values())] = whole
    seen: Counter[int] = Counter()
    batches: Counter[Shape] = Counter()
    checked = 0
    for step, (shape, indices) in enumerate(trained(case, rng, steps=40)):
        assert len(indices) == sizes[shape]
        assert tuple(indices) == case.plan.batch(step).indices
        batches[shape] += 1
        seen.update(indices)
        if (expected := ends.get(step + 1)) is None:
            continue
        checked += 1
        assert dict(batches) == {shape: count for shape, count in expected.items() if count}, f"seed {seed}"
        for (shape, part), clips in case.clips.items():
            often = [seen[index] for index in clips]
            assert max(often) - min(often) <= 1, f"seed {seed}: a clip came twice before another came once"
            samples = batches[shape] * sizes[shape] * sum(clips_of) * share[shape, part] / per_pass[shape]
            assert abs(sum(often) - samples) < len(case.weights), f"seed {seed}: a part has not its share"
    assert checked, "no pass ended"


@pytest.mark.parametrize("seed", range(15))
def test_each_clip_comes_once_an_epoch(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(15, 215))
def test_each_clip_comes_once_an_epoch_in_many_more_cases(seed: int) -> None:
    check(seed)
