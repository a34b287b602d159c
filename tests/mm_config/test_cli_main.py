"""An experiment file's own command line, with a runner that an installed package registers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import tiny, tiny_high, tiny_low
from mm_config import exact_hash, replace, spec_hash
from mm_config.cli.main import main
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run

RUNNER = '''
"""A package that runs specs of its own kind."""
import time
from mm_config.schema.errors import Problem, UserError
from mm_config.options.run_options import RunOutcome
from mm_config.runs.folder import open_run
from mm_config.schema.decorator import spec
from mm_config.schema.fields import LOCATION, field
from mm_config.schema.root import RootSpec

@spec("counting")
class CountingSpec(RootSpec):
    """Counts."""

    name: str = field(default="", role=LOCATION)
    """Label of the run."""
    upto: int = field(default=3, ge=1)
    """The last number."""

def run(spec, options):
    if spec.upto == 13:
        raise UserError([Problem("spec.upto", "13 brings bad luck"), Problem("", "so nothing is counted")])
    print("counting", flush=True)
    if spec.upto == 1000:
        time.sleep(60)
    run = open_run(spec, options)
    return RunOutcome(run.path, run.finish({"counted": list(range(1, spec.upto + 1))}))
'''
EXPERIMENT = '''
"""Counts to three."""
from counting import CountingSpec
from mm_config import main

SPEC = CountingSpec()

if __name__ == "__main__":
    main(SPEC)
'''


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with an experiment, and an installed distribution that runs its kind of spec."""
    (tmp_path / "count.py").write_text(EXPERIMENT)
    site = tmp_path / "site"
    metadata = site / "counting-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "counting.py").write_text(RUNNER)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mm.runners]\ncounting = counting:run\n")
    return tmp_path


def run(place: Path, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "count.py", *argv],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place / "site"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_ends_with_the_path_of_its_result(place: Path) -> None:
    done = run(place, "--spec.upto", "4")
    assert done.returncode == 0, done.stderr
    result = place / done.stdout.splitlines()[-1]
    assert json.loads(result.read_text()) == {"counted": [1, 2, 3, 4]}
    assert result.parent.parent == place / "runs" / "count", "the label is the file's stem"
    stored = json.loads((result.parent / "spec.json").read_text())
    assert stored["spec"] == {"name": "count", "upto": 4}
    provenance = json.loads((result.parent / "provenance.json").read_text())
    assert provenance["argv"] == ["count.py", "--spec.upto", "4"]


def test_if_needed_reports_an_equal_finished_run(place: Path) -> None:
    first = run(place).stdout.splitlines()[-1]
    again = run(place, "--if-needed", "--spec.name", "relabelled")
    folder = Path(first).parent.relative_to(place)
    unknown = f"the content that {folder} was made of is not recorded: only its spec is equal"
    assert again.stdout.splitlines() == [unknown, f"an equal run has finished: {folder}", first]
    other = run(place, "--if-needed", "--spec.upto", "5").stdout.splitlines()[-1]
    assert other != first


def test_a_queue_starts_a_run_once_and_then_resumes_it(place: Path) -> None:
    refused = run(place, "--resume", "latest")
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == ["--resume: no run 'latest' of 'count' in runs"]
    again = ("--resume", "latest", "--restart")
    first, second = (run(place, *again).stdout.splitlines()[-1] for _ in range(2))
    assert first == second


def test_runs_go_where_they_are_told_to(place: Path) -> None:
    done = run(place, "--runs-dir", "elsewhere", "--spec.name", "mine")
    assert Path(done.stdout.splitlines()[-1]).is_relative_to(place / "elsewhere" / "mine")
    assert not (place / "runs").exists()


def test_a_runners_mistakes_are_lines_and_status_2(place: Path) -> None:
    done = run(place, "--spec.upto", "13")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["spec.upto: 13 brings bad luck", "so nothing is counted"]


@pytest.mark.parametrize("runs_dir", ["count.py", "count.py/runs", "/proc/runs"])
def test_a_place_that_cannot_be_written_is_told_before_anything_is_done(place: Path, runs_dir: str) -> None:
    done = run(place, "--runs-dir", runs_dir)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{runs_dir}: the run folder can't be written: ")


def test_resuming_what_cannot_be_resumed_is_told_before_anything_is_done(place: Path) -> None:
    assert run(place).returncode == 0
    for target, told in (
        ("elsewhere", ["--resume: no run 'elsewhere' of 'count' in runs"]),
        ("latest", ["--resume: count/", "spec.upto: was 3 in that run, is 4 now"]),
    ):
        for flags in ([], ["--dry-run"]):
            done = run(place, "--spec.upto", "4", "--resume", target, *flags)
            assert (done.returncode, done.stdout) == (2, "")
            lines = done.stderr.splitlines()
            assert all(line.startswith(start) for line, start in zip(lines, told, strict=True)), lines


def test_under_torchrun_each_mistake_is_one_line(place: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, "count.py", "--spec.upto=x", "--spec.uptoo", "1"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if "spec.upto" in line]
    assert told == [
        "spec.upto: expected int, got 'x'",
        "--spec.uptoo: unknown flag; did you mean --spec.upto?",
    ]
    assert "exitcode  : 2 " in done.stderr


def test_only_the_first_rank_speaks(place: Path) -> None:
    result = run(place, RANK="0", WORLD_SIZE="2").stdout.splitlines()[-1]
    assert Path(result).is_file()
    assert run(place, RANK="1", WORLD_SIZE="2").stdout.splitlines() == ["counting"]


def test_ctrl_c_ends_quietly(place: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "count.py", "--spec.upto", "1000"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place / "site")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counting\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "interrupted\n")
    assert process.returncode == 130


def test_without_a_package_that_runs_the_kind_the_error_says_so(place: Path) -> None:
    (place / "site" / "counting-1.0.dist-info" / "entry_points.txt").write_text("")
    done = run(place)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("no installed package runs 'counting' specs (installed runners: ")
    assert line.endswith("train); install the package that does")


def test_all_mistakes_beside_the_spec_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(
            tiny_high.SPEC,
            [
                "x.py",
                "--runs-dir=",
                "--resume",
                "a",
                "--resume",
                "b",
                "--dry-run=yes",
                "--location",
                "x",
                "y",
            ],
        )
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "--runs-dir: needs a value (DIR)",
        "--resume: is given twice",
        "--dry-run: takes no value, got 'yes'",
        "unexpected argument 'y'",
        "--location: expected NAME=PATH, got 'x'",
    ]


def test_mistakes_in_the_spec_and_beside_it_are_told_together(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(tiny_high.SPEC, ["x.py", "y", "--spec.lr", "-1", "--spec.num-frames", "16"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "unexpected argument 'y'",
        "spec.optim.lr: must be > 0, got -1.0",
        "spec.data.num_frames: 16 frames are not of the form 4k+1; nearest: 13 or 17",
    ]


def test_a_dry_run_says_what_would_happen_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(tiny_high.SPEC, ["experiments/tiny_high.py", "--dry-run", "--spec.lr", "1e-4"])
    printed = capsys.readouterr().out
    spec = replace(tiny_high.SPEC, "optim.lr", 1e-4)
    assert spec_hash(spec) in printed
    assert exact_hash(spec) in printed
    assert "tiny_high (train spec)" in printed
    assert "a new one in runs/tiny_high" in printed
    assert f"{spec.model.parameter_count():,} per network" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_what_the_runner_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(tiny_high.SPEC, ["tiny_high.py", "--dry-run", "--spec.diffusion.timesteps_per", "micro_batch"])
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (2, "")
    assert told.err.startswith(
        "spec.diffusion.timesteps_per: is micro_batch, whose size belongs to execution"
    )


def test_a_dry_run_names_the_trainings_that_would_run_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(tiny.SPEC, ["tiny.py", "--dry-run", "--runs-dir", str(tmp_path)])
    printed = capsys.readouterr().out
    assert f"{spec_hash(tiny_high.SPEC)[:12]}  no finished run; it would run first" in printed
    assert "spec.high_noise.spec\n" in printed
    main(tiny.SPEC, ["tiny.py", "--dry-run", "--runs-dir", str(tmp_path), "--spec.no-build-missing"])
    assert "no finished run; this run would end at once" in capsys.readouterr().out


def test_a_dry_run_names_an_equal_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = open_run(replace(tiny_high.SPEC, "name", "earlier"), RunOptions(runs_dir=tmp_path))
    run.finish({})
    main(tiny_high.SPEC, ["tiny_high.py", "--dry-run", "--runs-dir", str(tmp_path)])
    assert f"{run.path} has finished; --if-needed would report it" in capsys.readouterr().out
    main(tiny.SPEC, ["tiny.py", "--dry-run", "--runs-dir", str(tmp_path)])
    printed = capsys.readouterr().out
    assert f"{spec_hash(tiny_high.SPEC)[:12]}  {run.path}" in printed
    assert f"{spec_hash(tiny_low.SPEC)[:12]}  no finished run; it would run first" in printed
