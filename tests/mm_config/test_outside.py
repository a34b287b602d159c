"""Names that a file or a spec gives lead nowhere but below their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.tiny_high import SPEC
from mm_config import replace
from mm_config.durable.reading import outside
from mm_config.options.locations import load_locations
from mm_config.options.run_options import RunOptions
from mm_config.rules.whole import problems
from mm_config.running.choosing import final_checkpoint
from mm_config.runs.folder import open_run
from mm_config.schema.errors import UserError
from mm_config.specs.weights import ReleasedWeights

LEADING_OUT = {
    "/etc": "an absolute path",
    "..": "`..` is not allowed",
    "a/../../b": "`..` is not allowed",
    "a\\..\\b": "a backslash",
    "C:\\x": "a backslash",
    "a\0b": "not a path",
    "": "not a path",
    "out": "a link that leads out",
    "out/file": "a link that leads out",
    "loop": "a link",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "folder"
    (inside / "sub").mkdir(parents=True)
    (inside / "out").symlink_to(tmp_path)
    (inside / "loop").symlink_to("loop")
    (inside / "within").symlink_to("sub")
    return inside


@pytest.mark.parametrize(("name", "why"), LEADING_OUT.items())
def test_what_leads_out_is_told(folder: Path, name: str, why: str) -> None:
    if name == "loop":
        assert (outside(name, folder) or why).startswith(
            why
        )  # Since Python 3.13 it is a path that isn't there.
        return
    assert (outside(name, folder) or "").startswith(why)
    by_words = outside(name, folder, follow=False)
    assert by_words is None if why == "a link that leads out" else by_words == outside(name, folder)


@pytest.mark.parametrize(
    "name", ["sub", "sub/file", "within", "within/file", "not there", "...", "a..b", "./sub"]
)
def test_what_stays_inside_is_taken(folder: Path, name: str) -> None:
    assert outside(name, folder) is None


@pytest.mark.parametrize("name", [name for name, why in LEADING_OUT.items() if name and "link" not in why])
def test_a_subfolder_stays_in_its_release(tmp_path: Path, name: str) -> None:
    weights = ReleasedWeights(name="Wan", subfolder=name)
    (problem,) = problems(replace(SPEC, "start_from", weights))
    assert problem.path == "spec.start_from.subfolder" and "stays inside the release" in problem.message
    with pytest.raises(UserError, match=r"the subfolder .* of Wan: "):
        load_locations([f"Wan={tmp_path}"], start=tmp_path).resolve("Wan", name)


@pytest.mark.parametrize("name", ["../../other/checkpoints/step-00000001", "/tmp", "checkpoints/out"])
def test_a_result_names_a_checkpoint_in_its_run(tmp_path: Path, name: str) -> None:
    run = open_run(SPEC, RunOptions(tmp_path / "runs"))
    run.checkpoints_dir.mkdir()
    (run.checkpoints_dir / "out").symlink_to(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    run.finish({"checkpoint": name})
    with pytest.raises(UserError) as caught:
        final_checkpoint(run.path)
    assert str(caught.value).startswith(f"{run.result_path}: checkpoint: ")
