"""The expert and the boundary of a training."""

from __future__ import annotations

import attrs

from mm_config.importing.mindspeed.book import Book
from mm_config.importing.mindspeed.boundaries import NEAR, between, level, points, points_above
from mm_config.importing.nodes import as_in_file
from mm_config.importing.values import real
from mm_config.importing.verdict import Verdict
from mm_config.schema.errors import SpecError
from mm_config.specs.diffusion import Expert, FlowMatchingSpec
from mm_config.specs.family import Family

MIN, MAX = "diffusion.min_timestep_boundary", "diffusion.max_timestep_boundary"


def expert_of(book: Book) -> Expert:
    """The expert that a training file is for; what it says beyond that is told by `place_boundary`."""
    if not book.has("model.json", "predictor.") and not book.has("model.json", "diffusion."):
        return Expert.HIGH_NOISE
    least, most = _fraction(book, MIN, 0.0), _fraction(book, MAX, 1.0)
    if least > 0 and most == 1:
        return Expert.LOW_NOISE
    return Expert.HIGH_NOISE if least == 0 and most < 1 else Expert.SINGLE


def place_boundary(book: Book, family: Family, expert: Expert) -> None:
    """Puts the expert and the boundary into the spec, from the fractions of the index axis."""
    facts = [fact for path in (MIN, MAX) if (fact := book.fact("model.json", path)) is not None]
    least, most = _fraction(book, MIN, 0.0), _fraction(book, MAX, 1.0)
    if not book.has("model.json", "diffusion."):
        book.set("diffusion.boundary", None if expert is Expert.SINGLE else family.boundary)
        return
    if not 0 <= least < most <= 1 or (least > 0 and most < 1):
        for fact in facts:
            book.refuse(
                fact,
                "an expert has the levels from 0 to a boundary or from it to 1 (min_timestep_boundary 0, or "
                "max_timestep_boundary 1)",
            )
        return
    grid = _grid(book, family)
    count = points(grid, most if expert is Expert.HIGH_NOISE else least)
    if expert is not Expert.SINGLE and not 0 < count < grid.num_train_timesteps:
        for fact in facts:
            book.refuse(fact, f"leaves one expert none of the {grid.num_train_timesteps} noise levels")
        return
    boundary, note = (None, "") if expert is Expert.SINGLE else _boundary(grid, count, family)
    book.set("expert", expert)
    book.set("diffusion.boundary", boundary, facts[-1] if facts else None)
    for fact in facts:
        text = f"expert = {expert.value}, diffusion.boundary = {boundary}{note}"
        book.mark(fact, Verdict.MAPPED, text)


def _fraction(book: Book, path: str, default: float) -> float:
    fact = book.fact("model.json", path)
    try:
        return default if fact is None else real(fact.value)
    except ValueError:
        if fact is not None and not any(problem.path == fact.place for problem in book.problems):
            book.refuse(fact, "expected a number from 0 to 1")
        return default


def _grid(book: Book, family: Family) -> FlowMatchingSpec:
    """The training grid; values that can't be are put off until the spec is built."""
    grid = FlowMatchingSpec(shift=family.train_shift)
    for name, path in (
        ("shift", "diffusion.shift"),
        ("num_train_timesteps", "diffusion.num_train_timesteps"),
        ("sigma_max", "diffusion.sigma_max"),
        ("sigma_min", "diffusion.sigma_min"),
        ("drop_last", "diffusion.extra_one_step"),
    ):
        value = book.get("model.json", path)
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
