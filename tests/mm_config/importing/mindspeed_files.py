"""MindSpeed-MM's own examples, edited and imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_config.importing.mindspeed.importer import import_files
from mm_config.importing.report import Report
from mm_config.importing.verdict import Verdict
from mm_config.schema.errors import UserError
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec

DATA = Path(__file__).parent / "data"


def imported(*names: str, allow_unknown: bool = False) -> tuple[TrainSpec | InferSpec, Report]:
    return import_files([DATA / name for name in names], allow_unknown=allow_unknown)


def trained(*names: str) -> tuple[TrainSpec, Report]:
    spec, report = imported(*names)
    assert isinstance(spec, TrainSpec)
    return spec, report


def edited(folder: Path, name: str, *changes: tuple[str, str]) -> Path:
    """A copy of a data file with texts replaced."""
    text = (DATA / name).read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = folder / name
    file.write_text(text, "utf-8")
    return file


def refusals(*files: Path) -> str:
    with pytest.raises(UserError) as raised:
        import_files(files)
    return str(raised.value)


def told(report: Report, verdict: Verdict, key: str) -> str:
    """The one text of a key with a verdict."""
    (text,) = [entry.text for entry in report.of(verdict) if entry.key == key]
    return text
