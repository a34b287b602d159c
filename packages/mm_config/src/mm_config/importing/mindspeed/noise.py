"""The expert and the boundary of a training."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from mm_config.importing.mindspeed.boundaries import NEAR, between, level, points, points_above
from mm_config.importing.mindspeed.files import Files, Known
from mm_config.importing.mindspeed.keys import MAX, MIN, MODEL
from mm_config.importing.nodes import as_in_file
from mm_config.importing.readings import Reading, given, refused, silent, tried
from mm_config.importing.values import real
from mm_config.schema.errors import SpecError
from mm_config.specs.diffusion import Expert, FlowMatchingSpec
from mm_config.specs.family import Family

_GRID = (
    ("shift", "diffusion.shift"),
    ("num_train_timesteps", "diffusion.num_train_timesteps"),
    ("sigma_max", "diffusion.sigma_max"),
    ("sigma_min", "diffusion.sigma_min"),
    ("drop_last", "diffusion.extra_one_step"),
)


def noise_levels(files: Files, known: Known) -> Iterator[Reading]:
    """`expert` and `diffusion.boundary`, from the fractions of the index axis."""
    family, expert = known.family, known.expert
    if not files.has(MODEL, "diffusion."):
        boundary = None if expert is Expert.SINGLE else family.boundary
        yield silent("diffusion", "diffusion.boundary", boundary)
        return
    facts = [fact for path in (MIN, MAX) if (fact := files.fact(MODEL, path)) is not None]
    read = [(fact, *tried(fact, real)) for fact in facts]
    if any(wrong for _, _, wrong in read):
        yield from (refused(fact, "expected a number from 0 to 1") for fact, _, wrong in read if wrong)
        return
    values = {fact.path: value for fact, value, _ in read}
    least = next((value for path, value in values.items() if path.endswith(MIN)), 0.0)
    most = next((value for path, value in values.items() if path.endswith(MAX)), 1.0)
    grid = _grid(files, family)
    count = points(grid, most if expert is Expert.HIGH_NOISE else least)
    if why := _why_not(least, most, expert, grid, count):
        yield from (refused(fact, why) for fact in facts)
        return
    boundary, note = (None, "") if expert is Expert.SINGLE else _boundary(grid, count, family)
    for fact in facts:
        yield given(fact, "expert", expert)
        yield given(fact, "diffusion.boundary", boundary, f"diffusion.boundary = {boundary}{note}")
    if not facts:
        yield silent("diffusion", "expert", expert)
        yield silent("diffusion", "diffusion.boundary", boundary)


def _why_not(least: float, most: float, expert: Expert, grid: FlowMatchingSpec, count: int) -> str:
    if not 0 <= least < most <= 1 or (least > 0 and most < 1):
        return (
            "an expert has the levels from 0 to a boundary or from it to 1 (min_timestep_boundary 0, or "
            "max_timestep_boundary 1)"
        )
    if expert is not Expert.SINGLE and not 0 < count < grid.num_train_timesteps:
        return f"leaves one expert none of the {grid.num_train_timesteps} noise levels"
    return ""


def _grid(files: Files, family: Family) -> FlowMatchingSpec:
    """The training grid; values that can't be are put off until the spec is built."""
    grid = FlowMatchingSpec(shift=family.train_shift)
    for name, path in _GRID:
        value = files.get(MODEL, path)
        if value is not None:
            try:
                grid = attrs.evolve(grid, **{name: value})
            except SpecError:
                continue
    return grid


def _boundary(grid: FlowMatchingSpec, count: int, family: Family) -> tuple[float, str]:
    """The family's boundary if it is as good as the file's, else one with the file's points on each side."""
    exact = level(grid, count)
    own = between(grid, count)
    if family.boundary is None:
        return own, f": {count} of {grid.num_train_timesteps} levels are above it"
    if points_above(grid, family.boundary) == count:
        return (
            family.boundary,
            f", the family's: index {count} is sigma {exact:.6g}, so both cut at one point",
        )
    if abs(exact - family.boundary) <= NEAR:
        return (
            family.boundary,
            f", the family's: index {count} is sigma {exact:.6g}, within {as_in_file(NEAR)} of it",
        )
    return own, (
        f": index {count} is sigma {exact:.6g}; the family's experts part at {family.boundary}, so weights "
        "of this run and the other expert leave a gap or overlap"
    )
