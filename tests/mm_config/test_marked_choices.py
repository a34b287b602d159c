"""Each choice of a field is marked where it is offered, if the runner refuses it, and only then."""

from __future__ import annotations

import enum
import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from experiments import tiny, tiny_high, wan22_high, wan22_ti2v_5b_infer
from mm_config import replace
from mm_config.cli.completing import candidates
from mm_config.cli.help import help_lines
from mm_config.cli.page import unstyled
from mm_config.cli.summary import summary_lines
from mm_config.rules.carried_out import refusals
from mm_config.schema.evolve import leaves
from mm_config.schema.root import RootSpec
from mm_config.specs import TimestepScope, TrainSpec

MARK = "(not carried out yet)"
SPECS = {
    "tiny": tiny.SPEC,
    "tiny_high": tiny_high.SPEC,
    "wan22_high": wan22_high.SPEC,
    "wan22_ti2v_5b_infer": wan22_ti2v_5b_infer.SPEC,
}


def listed(kind: Any) -> Iterator[Any]:
    """The values of a field that can be written one by one."""
    for one in typing.get_args(kind) if typing.get_origin(kind) is not tuple else ():
        yield from listed(one)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        yield from kind
    elif kind is bool:
        yield from (True, False)
    elif kind is type(None):
        yield None


def word(value: Any) -> str:
    return str(value.value if isinstance(value, enum.Enum) else value)


def marked(spec: RootSpec) -> dict[str, set[str] | None]:
    """What the help marks of each field: some of its choices, or None for all but what can be run."""
    page = "\n".join(map(unstyled, help_lines(spec, "x.py", "", ())))
    page = re.sub(r"(?<=,)\n +(?=[\w-])", "", page)
    page = re.sub(r"\n +(?=[{(]\w)", "  ", page)
    found: dict[str, set[str] | None] = {}
    for path, line in re.findall(r"^  --spec\.([\w.]+)(.*)$", page, re.MULTILINE):
        words = re.findall(rf"[{{,]([^{{, ]+) {re.escape(MARK)}", line)
        found[path] = None if line.endswith(f"  {MARK}") else set(words)
    return found


@pytest.mark.parametrize("name", SPECS)
def test_the_marks_are_the_refusals_of_specs_that_have_the_choices(name: str) -> None:
    spec = SPECS[name]
    marks, some = marked(spec), 0
    for leaf in leaves(spec, by_hash=False):
        refused, choices = set[str](), list(listed(leaf.type))
        for choice in choices:
            problems = refusals(replace(spec, leaf.path, choice))
            if any(problem.path == f"spec.{leaf.path}" for problem in problems):
                refused.add(word(choice))
        if choices and marks[leaf.path] is None:
            assert len(choices) - len(refused) <= 1, f"{leaf.path}: {refused} of {choices}"
        elif choices:
            assert marks[leaf.path] == refused, leaf.path
            some += bool(refused)
    # Of generations no listed choice is refused any more.
    assert some >= isinstance(spec, TrainSpec)


def test_a_refused_choice_is_marked_where_it_is_completed() -> None:
    words = ["hash", "experiments.tiny_high", "--spec.diffusion.timesteps_per", ""]
    found = {one.text: one.about for one in candidates(words)}
    assert found == {"sample": "", "micro_batch": MARK}
    (later,) = candidates(["hash", "experiments.tiny", "--spec.runtime.residency.pin_memory"])
    assert later.about.endswith(f") {MARK}")
    (decay,) = candidates(["hash", "experiments.tiny_high", "--spec.schedule.decay="])[:1]
    assert decay.about == ""


def test_a_refused_choice_is_marked_where_it_is_shown() -> None:
    spec = replace(tiny_high.SPEC, "diffusion.timesteps_per", TimestepScope.MICRO_BATCH)
    lines = map(unstyled, summary_lines(spec, 100))
    assert [line.split()[:2] for line in lines if line.endswith(MARK)] == [
        ["diffusion.timesteps_per", "micro_batch"]
    ]
