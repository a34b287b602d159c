"""Doctor's checks that need no torch, and how checks that fail are told."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest

from experiments import tiny_high
from mm_config.cli.app import app
from mm_config.doctor.checks import BROKEN, GROUP, MISSING, OK, Check, DoctorOptions, checks_of
from mm_config.doctor.machine import CHECKS, extras, index, locations, packages, python, runs_folder
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run

PACKAGE = """
from mm_config.doctor.checks import MISSING, OK, Check
from mm_config.schema.errors import Problem, UserError

def engine(options):
    yield Check("engine", OK, "runs")
    raise RuntimeError("two\\nlines")

def fuel_pump(options):
    import a_pump_nobody_has

def driver(options):
    raise UserError(Problem("driver", "is asleep"))

def radio(options):
    yield Check("radio", MISSING, "", "buy one")

CHECKS = (engine, fuel_pump, driver, radio)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages before all others."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def install(site: Path, name: str, release: str, metadata: str = "", entries: str = "") -> None:
    """Installs a distribution as installers do: metadata and entry points in a dist-info folder."""
    folder = site / f"{name.replace('-', '_')}-{release}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n{metadata}")
    (folder / "entry_points.txt").write_text(entries)


def test_each_check_of_a_package_is_told_whatever_the_others_do(site: Path) -> None:
    (site / "car_checks.py").write_text(PACKAGE)
    found = list(checks_of(EntryPoint("car", "car_checks:CHECKS", GROUP), DoctorOptions()))
    assert found == [
        Check("engine", OK, "runs"),
        Check("engine", BROKEN, "RuntimeError: two lines"),
        Check(
            "fuel pump",
            BROKEN,
            "ModuleNotFoundError: No module named 'a_pump_nobody_has'",
            "pip install a_pump_nobody_has",
        ),
        Check("driver", BROKEN, "driver: is asleep"),
        Check("radio", MISSING, "", "buy one"),
    ]


def test_checks_that_cannot_be_imported_are_a_finding() -> None:
    (found,) = checks_of(EntryPoint("gone", "gone_package.checks:CHECKS", GROUP), DoctorOptions())
    assert (found.name, found.status) == ("checks of gone_package", BROKEN)


def test_the_checks_of_mm_config_are_registered() -> None:
    from importlib.metadata import entry_points

    assert entry_points(group=GROUP, name="config")["config"].load() == CHECKS


def test_python_and_the_packages() -> None:
    (interpreter,) = python(DoctorOptions())
    assert interpreter.status is OK
    assert sys.executable in interpreter.detail
    assert Check("mm-config", OK, version("mm-config")) in packages(DoctorOptions())


def test_versions_that_do_not_fit_are_broken(site: Path) -> None:
    needs = (
        'Requires-Dist: attrs>=999\nRequires-Dist: nothing-has-this-name\nRequires-Dist: x; extra == "y"\n'
    )
    install(site, "mm-car", "1.2", needs, "[mm.verbs]\ncar = car:run\n")
    (found,) = (check for check in packages(DoctorOptions()) if check.name == "mm-car")
    assert found == Check(
        "mm-car",
        BROKEN,
        f"1.2, but attrs is {version('attrs')}, not >=999, nothing-has-this-name is not installed",
        "pip install 'attrs>=999' nothing-has-this-name",
    )


def test_extras_say_how_to_get_them(site: Path) -> None:
    metadata = (
        "Requires-Dist: attrs\n"
        "Provides-Extra: fast\nRequires-Dist: attrs>=1; extra == 'fast'\n"
        "Provides-Extra: loud\nRequires-Dist: nothing-has-this-name; extra == 'loud'\n"
        "Provides-Extra: newest\nRequires-Dist: attrs>=999; extra == 'newest'\n"
        "Provides-Extra: elsewhere\n"
        "Requires-Dist: nothing-has-this-name; sys_platform == 'abacus' and extra == 'elsewhere'\n"
    )
    install(site, "mm-car", "1.2", metadata, "[mm.verbs]\ncar = car:run\n")
    found = [check for check in extras(DoctorOptions()) if "mm-car" in check.detail + check.remedy]
    assert found == [
        Check("attrs", OK, f"{version('attrs')} (mm-car[fast])"),
        Check("nothing-has-this-name", MISSING, "", 'pip install "mm-car[loud]"'),
        Check("attrs", MISSING, f"attrs is {version('attrs')}, not >=999", 'pip install "mm-car[newest]"'),
    ]


def test_the_runs_folder_and_its_index(tmp_path: Path) -> None:
    options = DoctorOptions(runs_dir=tmp_path / "deep" / "runs")
    folder, disk = runs_folder(options)
    assert (folder.status, disk.status) == (OK, OK)
    assert "made by the first run" in folder.detail
    assert list(index(options)) == [Check("index", OK, "0 runs yet")]
    assert not (tmp_path / "deep").exists(), "asking makes nothing"

    options.runs_dir.mkdir(parents=True)
    open_run(tiny_high.SPEC, RunOptions(options.runs_dir)).finish({})
    (found,) = index(options)
    assert found.detail == f"1 run in sqlite:///{options.runs_dir / 'index.sqlite'}"


def test_a_runs_folder_that_cannot_be_written_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder, _ = runs_folder(DoctorOptions(runs_dir=tmp_path / "file" / "runs"))
    assert (folder.status, folder.remedy) == (BROKEN, "give --runs-dir DIR")


def test_an_index_that_cannot_be_opened_is_broken(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM_RUNS_URL", "no database")
    entry = EntryPoint("config", "mm_config.doctor.machine:CHECKS", GROUP)
    (found,) = (
        check for check in checks_of(entry, DoctorOptions(runs_dir=tmp_path)) if check.name == "index"
    )
    assert found.status is BROKEN
    assert "MM_RUNS_URL" in found.detail


def test_locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (none,) = locations(DoctorOptions())
    assert (none.status, none.name) == (OK, "locations")
    assert str(tmp_path / ".config" / "mm") in none.detail

    (tmp_path / "here").mkdir()
    (tmp_path / "locations.yaml").write_text("clips: here\nweights: gone\n")
    assert list(locations(DoctorOptions())) == [
        Check("location", OK, f"clips is {tmp_path / 'here'} by {tmp_path / 'locations.yaml'}"),
        Check(
            "location",
            MISSING,
            f"weights is {tmp_path / 'gone'} by {tmp_path / 'locations.yaml'}, which does not exist",
            "correct the line, or put it there",
        ),
    ]
    (tmp_path / "locations.yaml").write_text("- clips\n")
    entry = EntryPoint("config", "mm_config.doctor.machine:CHECKS", GROUP)
    found = {check.name: check for check in checks_of(entry, DoctorOptions(runs_dir=tmp_path))}
    assert found["locations"].status is BROKEN


def test_mistakes_are_told_before_anything_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["doctor", "torch", "--jsn", "--runs-dir"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "--runs-dir: needs a value (DIR)",
        "--jsn: unknown flag; did you mean --json?",
        "unexpected argument 'torch'; --device npu takes a target",
    ]


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("doctor", "completion"):
        assert app([verb, "--help"]) == 0
        page = capsys.readouterr().out
        assert page.startswith(f"usage: mm {verb} ")
        assert "\nexamples\n" in page
        assert max(map(len, page.splitlines())) <= 80
