"""`mm import` writes an experiment that runs, and overwrites nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mm_config.cli.app import app
from mm_config.cli.targets import resolve
from mm_config.importing.mindspeed.importer import import_files
from mm_config.importing.verdict import Verdict
from mm_config.options.run_options import RunOptions
from mm_config.rules.carried_out import refusals
from mm_config.schema.identity import exact_hash

DATA = Path(__file__).parent / "data"
FILES = ["seed_model.json", "data.json", "fsdp2_config.yaml", "seed_pretrain_high.sh"]


def run(*words: object) -> int:
    return app(["import", "mindspeed", *map(str, words)])


def paths(*names: str) -> list[Path]:
    return [DATA / name for name in names]


def test_the_experiment_that_is_written_has_the_imported_spec(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "imported.py"
    assert run(*paths(*FILES), "--out", out, "--report", tmp_path / "report.txt") == 0
    printed = capsys.readouterr().out
    spec, report = import_files(paths(*FILES))
    assert exact_hash(resolve(str(out), RunOptions(runs_dir=tmp_path))) == exact_hash(spec)
    source = out.read_text("utf-8")
    assert "Imported by `mm import mindspeed`" in source and "--location clips=examples/wan2.2" in source
    page = (tmp_path / "report.txt").read_text("utf-8")
    assert not list(refusals(spec))
    assert printed == f"written  {out}\n{page}"
    assert page == "\n".join(report.lines(str(out))) + "\n"


def test_the_report_is_also_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*paths(*FILES), "--out", tmp_path / "imported.py", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["family"] == "wan22.T2V_A14B"
    entries = {entry["key"]: entry for entry in report["entries"]}
    assert entries["--lr"]["verdict"] == "mapped" and entries["--lr"]["text"] == "optim.lr = 1e-05"
    assert "experiments/wan22_high.py" in report["differences"]
    assert {entry["verdict"] for entry in report["entries"]} <= {one.name.lower() for one in Verdict}


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "imported.py"
    out.write_text("mine", "utf-8")
    assert run(*paths(*FILES), "--out", out) == 2
    assert "--force" in capsys.readouterr().err and out.read_text("utf-8") == "mine"
    assert run(*paths(*FILES), "--out", out, "--force") == 0
    assert "SPEC = TrainSpec(" in out.read_text("utf-8")


def test_the_report_never_replaces_the_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, same = tmp_path / "imported.py", f"{tmp_path}/../{tmp_path.name}/imported.py"
    assert run(*paths(*FILES), "--out", out, "--report", same) == 2
    assert "--report: " in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize("flag", ["--out", "--report"])
def test_a_file_that_can_not_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    places = {"--out": tmp_path / "imported.py", "--report": tmp_path / "report.txt"}
    words = [word for name, place in places.items() if name != flag for word in (name, place)]
    for bad in (tmp_path / f"{'a' * 300}.py", tmp_path / "none" / "imported.py"):
        assert run(DATA / "seed_model.json", *words, flag, bad) == 2
        assert capsys.readouterr().err.startswith(f"{flag}: ")
    assert not any(place.exists() for place in places.values())


def test_an_experiment_is_whole_or_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], full_disk: None
) -> None:
    out = tmp_path / "imported.py"
    out.write_text("mine", "utf-8")
    assert run(*paths(*FILES), "--out", out, "--force") == 2
    assert capsys.readouterr().err == f"--out: '{out}' can't be written: No space left on device\n"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("imported.py", "mine")]


def test_a_pipe_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, pipe = tmp_path / "imported.py", tmp_path / "pipe"
    os.mkfifo(pipe)
    assert run(*paths(*FILES), "--out", out, "--report", pipe, "--force") == 2
    assert capsys.readouterr().err == f"--report: '{pipe}' can't be written: it is a pipe, no file\n"
    assert pipe.is_fifo() and not out.exists()


def test_a_refused_import_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "imported.py"
    assert run(DATA / "seed_model_as_printed.json", "--out", out) == 2
    shown = capsys.readouterr().err
    assert "seed_model_as_printed.json:59: " in shown and "Traceback" not in shown
    assert not out.exists()


def test_a_script_is_never_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marker, script = tmp_path / "marker", tmp_path / "pretrain.sh"
    for line in (
        f"LR=$(touch {marker})",
        f"LR=`touch {marker}`",
        f"eval touch {marker}",
        f"LR=1 | touch {marker}",
    ):
        script.write_text(f"{line}\ntorchrun --nproc_per_node 8 pretrain_sora.py --lr $LR\n", "utf-8")
        assert run(script, "--out", tmp_path / "imported.py") == 2
        assert f"{script}:" in capsys.readouterr().err
    assert not marker.exists()


def test_mistakes_of_the_command_line_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["import", "mindsped", "x.json"]) == 2
    shown = capsys.readouterr().err
    assert "did you mean mindspeed?" in shown and "--out: is missing" in shown
    assert run(tmp_path / "none.json", "--out", tmp_path / "a.py") == 2
    assert "none.json" in capsys.readouterr().err
    assert run("--out", tmp_path / "a.py") == 2
    assert run(DATA / "data.json", "--out", tmp_path / "a.json", "--alow-unknown") == 2
    shown = capsys.readouterr().err
    assert "did you mean --allow-unknown?" in shown


def test_all_mistakes_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing, report = tmp_path / "nope.json", tmp_path / "none" / "report.txt"
    unread = f"{missing}: can't be read: No such file or directory\n"
    assert app(["import", "telefuser", str(missing)]) == 2
    named = "--out: is missing; name the experiment to write, such as experiments/mine.py\n"
    assert capsys.readouterr().err == f"{named}{unread}"
    out = tmp_path / "2 foo-bar.py"
    assert run(missing, "--out", out, "--report", report, "--alow-unknown") == 2
    assert capsys.readouterr().err == (
        "--alow-unknown: unknown flag; did you mean --allow-unknown?\n"
        "--out: the name of a Python file has letters, digits and _ and begins with no digit, "
        "got '2 foo-bar.py'; did you mean _2_foo_bar.py?\n"
        f"--report: the folder '{report.parent}' does not exist\n{unread}"
    )


def test_help_tells_the_tools(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["import", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "mindspeed" in shown and "telefuser" in shown
