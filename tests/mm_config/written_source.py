"""Generated source, executed and held against the spec that it was written from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from mm_config import exact_hash, spec_hash
from mm_config.schema.root import RootSpec
from mm_config.stored.files import to_payload
from mm_config.stored.source import to_source


def executed(source: str) -> Any:
    """The SPEC of a file, imported and not run."""
    module: dict[str, Any] = {"__name__": "written"}
    exec(compile(source, "written.py", "exec"), module)
    return module["SPEC"]


def assert_gives_back(value: RootSpec) -> str:
    source = to_source(value)
    again = executed(source)
    assert again == value
    assert to_payload(again) == to_payload(value)
    assert (spec_hash(again), exact_hash(again)) == (spec_hash(value), exact_hash(value))
    return source


def assert_ruff_changes_nothing(folder: Path, sources: list[str]) -> None:
    for number, source in enumerate(sources):
        (folder / f"written_{number}.py").write_text(source, "utf-8")
    config = ["--no-cache", "--config", str(Path(__file__).parents[2] / "pyproject.toml"), str(folder)]
    for command in (["format", "--diff"], ["check", "--ignore", "E501"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *config], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
