"""A name that two distributions register is refused by one line that names both; no chance decides."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from experiments import tiny_high
from mm_config.cli.app import app
from mm_config.doctor.checks import BROKEN, DoctorOptions, all_checks
from mm_config.options.run_options import RunOptions
from mm_config.reproducing.compare import compare
from mm_config.reproducing.difference import shares
from mm_config.rules.carried_out import refusals
from mm_config.running.contents import inputs_here
from mm_config.running.runners import runner_of
from mm_config.schema import installed
from mm_config.schema.errors import UserError
from mm_config.schema.installed import all_registered, registered_names
from tests.mm_config.test_doctor import install

EXPERIMENT = "experiments/tiny_high.py"
NAMES = {
    "mm.verbs": ("hash", "mm-config"),
    "mm.checks": ("data", "mm-data"),
    "mm.measures": ("mp4", "mm-data"),
    "mm.checkpoints": ("differences", "mm-models"),
    "mm.refusals": ("train", "mm-train"),
    "mm.contents": ("train", "mm-train"),
    "mm.runners": ("train", "mm-train"),
    "mm.published": ("wan-transformer", "mm-models"),
}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that registers a name of each group that is taken, and a format with a second one."""
    monkeypatch.syspath_prepend(tmp_path)
    entries = "".join(f"[{group}]\n{name} = json:dumps\n" for group, (name, _) in NAMES.items())
    install(tmp_path, "scratch", "1.0", entries=f"{entries}[mm.exporters]\nsize = json:dumps\n")
    install(tmp_path, "another", "1.0", entries="[mm.exporters]\nsize = json:loads\n")


def refused(group: str, name: str, owners: str) -> str:
    return f"{name!r} of {group} is registered by {owners}; uninstall all of them but one"


def test_a_verb_and_a_format(capsys: pytest.CaptureFixture[str]) -> None:
    told = refused("mm.verbs", "hash", "mm-config and scratch")
    for words in (["hash", EXPERIMENT], ["help", "hash"]):
        assert app(words) == 2
        assert capsys.readouterr().err == f"{told}\n"
    assert app(["help"]) == 0
    assert told in " ".join(capsys.readouterr().out.split())
    assert app(["show", EXPERIMENT]) == 2  # It marks what the runner refuses.
    assert "mm-train and scratch" in capsys.readouterr().err
    assert app(["export", "size", EXPERIMENT]) == 2
    assert capsys.readouterr().err == f"{refused('mm.exporters', 'size', 'another and scratch')}\n"


def test_what_runs_a_spec_and_what_is_asked_of_packages(tmp_path: Path) -> None:
    spec, options = tiny_high.SPEC, RunOptions()
    (tmp_path / "run" / "checkpoints" / "step-00000001").mkdir(parents=True)
    for group, asked in {
        "mm.refusals": lambda: refusals(spec),
        "mm.contents": lambda: inputs_here(spec, options),
        "mm.runners": lambda: runner_of(spec),
        "mm.measures": lambda: shares(Path("a.mp4"), Path("b.mp4")),
        "mm.checkpoints": lambda: compare(tmp_path / "run", tmp_path / "run"),
        "mm.published": lambda: all_registered("mm.published"),
    }.items():
        name, owner = NAMES[group]
        with pytest.raises(UserError) as caught:
            asked()
        assert str(caught.value) == refused(group, name, f"{owner} and scratch")


def test_checks_of_one_name_are_a_finding() -> None:
    found = [check for check in all_checks(DoctorOptions()) if check.name == "checks of data"]
    assert [(check.status, check.detail) for check in found] == [
        (BROKEN, refused("mm.checks", "data", "mm-data and scratch"))
    ]


def test_what_is_installed_is_read_once_until_the_search_path_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()
    monkeypatch.setattr(installed, "entry_points", lambda: asked.append("asked") or entry_points())
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        install(tmp_path / folder, "more", "1.0", entries=f"[mm.exporters]\n{folder} = json:dumps\n")
        monkeypatch.syspath_prepend(tmp_path / folder)
        for group in ("mm.verbs", "mm.exporters", "mm.exporters"):
            assert registered_names(group)
    assert registered_names("mm.exporters") == ["second", "size"]
    assert len(asked) == 2
