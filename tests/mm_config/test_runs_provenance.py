"""Provenance: the code, packages, machine and command line of a run."""

import json
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from experiments.tiny_high import SPEC
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run
from mm_config.runs.provenance import provenance, uncommitted_patch


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "-q")
    (root / "experiment.py").write_text("SEED = 1\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    monkeypatch.chdir(root)
    return root


def state_of(root: Path) -> dict[str, object]:
    return next(state for state in provenance(())["git"] if state["root"] == str(root))


def test_a_clean_repository_is_its_commit(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert state_of(repository) == {
        "root": str(repository),
        "commit": commit,
        "dirty": False,
        "untracked": [],
    }
    assert uncommitted_patch(repository) == b""


def test_uncommitted_changes_are_kept_as_a_patch_that_applies(repository: Path, tmp_path: Path) -> None:
    (repository / "experiment.py").write_text("SEED = 2\n")
    (repository / "forgotten file.py").write_text("")
    run = open_run(SPEC, RunOptions(tmp_path / "runs"))
    stored = json.loads((run.path / "provenance.json").read_text())["git"]
    state = next(state for state in stored if state["root"] == str(repository))
    assert (state["dirty"], state["untracked"]) == (True, ["forgotten file.py"])

    git(repository, "checkout", "-q", "experiment.py")
    git(repository, "apply", str(run.path / "provenance-project.patch"))
    assert (repository / "experiment.py").read_text() == "SEED = 2\n"


def test_a_repository_without_a_commit_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")
    monkeypatch.chdir(tmp_path)
    assert state_of(tmp_path)["commit"] is None


def test_versions_machine_and_launcher_are_recorded_but_no_other_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("WANDB_API_KEY", "a secret")
    found = provenance(["train.py", "--spec.lr", "1e-5"], ["device 0"])
    assert found["packages"]["attrs"] == version("attrs")
    assert found["launcher"]["WORLD_SIZE"] == "8"
    assert found["argv"] == ["train.py", "--spec.lr", "1e-5"]
    assert found["devices"] == ["device 0"]
    assert "a secret" not in json.dumps(found)
