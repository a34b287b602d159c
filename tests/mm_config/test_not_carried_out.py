"""What no runner carries out yet is marked in --help and in mm show, as the runner itself says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from mm_config import replace
from mm_config.cli.help import help_lines
from mm_config.cli.page import unstyled
from mm_config.cli.summary import summary_lines
from mm_config.rules.carried_out import CarriedOut, NotCarriedOut, not_carried_out, refusals
from mm_config.schema.decorator import spec
from mm_config.schema.errors import Problem
from mm_config.schema.fields import LOCATION, field
from mm_config.schema.root import RootSpec
from mm_config.specs.data import DataSpec
from mm_config.specs.datasets import ShapesSpec

MARK = "  (not carried out yet)"


@spec("runner-test-root")
class Rendering(RootSpec):
    """A run with parts of several ages."""

    name: str = field(default="", role=LOCATION)
    """Label."""
    size: int = 4
    """A field of birth, of which the runner can do some values."""
    lights: bool = True
    """A switch that can't be turned off."""
    data: DataSpec = DataSpec(dataset=ShapesSpec(), batch_size=1)
    """A part with later fields."""


def value_problems(value: Rendering) -> Iterator[Problem]:
    if value.size > 8:
        yield Problem("size", "is too much")
    if not value.lights:
        yield Problem("lights", "are always on")


RUNNER = CarriedOut("rendering", frozenset({"data.order"}), value_problems)
VALUE = Rendering(name="x")


@pytest.fixture(autouse=True)
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with the runner's refusals."""
    info = tmp_path / "rendering-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rendering\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mm.refusals]\nrunner-test-root = {__name__}:RUNNER\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def flags(value: RootSpec) -> dict[str, bool]:
    """Whether each flag of the help is marked."""
    lines = list(map(unstyled, help_lines(value, "x.py", "", ())))
    return {
        line.split()[0].rstrip(","): line.endswith(MARK) for line in lines if line.startswith("  --spec.")
    }


def test_the_help_marks_the_flags_that_only_refuse() -> None:
    marked = flags(VALUE)
    assert marked["--spec.data.resize"]
    assert marked["--spec.data.buckets"]
    assert not marked["--spec.data.order"], "the runner has learnt it"
    assert not marked["--spec.data.fps"], "every runner carries out the fields of birth"
    assert not marked["--spec.size"], "some of its values can be run"


def test_one_side_of_a_switch_is_marked_alone() -> None:
    (line,) = (line for line in map(unstyled, help_lines(VALUE, "x.py", "", ())) if "--spec.lights" in line)
    assert line == "  --spec.lights, --spec.no_lights (not carried out yet)"
    assert not_carried_out(VALUE).choices["spec.lights"] == (False,)


def test_the_mark_of_a_flag_is_dim() -> None:
    lines = help_lines(VALUE, "x.py", "", ())
    (line,) = (line for line in lines if "--spec.data.resize" in unstyled(line))
    assert [text for text, style in line if style == "dim"] == [MARK]


def test_the_page_marks_what_is_set_and_refused() -> None:
    changed = replace(VALUE, {"size": 9, "data.speed_factor": 2.0, "data.batch_size": 2})
    lines = list(map(unstyled, summary_lines(changed, 80)))
    assert {line.split()[0] for line in lines if line.endswith(MARK)} == {"size", "data.speed_factor"}
    assert {problem.path for problem in refusals(changed)} == {"spec.size", "spec.data.speed_factor"}


def test_a_spec_without_a_runner_has_no_marks() -> None:
    @spec("runnerless-root")
    class Runnerless(RootSpec):
        """A run that no package carries out."""

        name: str = field(default="", role=LOCATION)
        later: int = field(default=1, neutral=1)

    assert not any(flags(Runnerless(name="x")).values())
    assert not_carried_out(Runnerless()) == NotCarriedOut(frozenset(), {})


def test_refusals_and_marks_have_one_source() -> None:
    learnt = attrs.evolve(RUNNER, fields=RUNNER.fields | {"data.speed_factor"})
    changed = replace(VALUE, "data.speed_factor", 2.0)
    assert [problem.path for problem in RUNNER.refusals(changed)] == ["spec.data.speed_factor"]
    assert list(learnt.refusals(changed)) == []
