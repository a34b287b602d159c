"""`mm` and its verbs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import tiny, tiny_high, tiny_low
from mm_config import exact_hash, load, replace, spec_hash
from mm_config.cli.app import app
from mm_config.evolve import leaves
from mm_config.options import RunOptions
from mm_config.runs.folder import open_run

ROOT = Path(__file__).parents[2]
HIGH, LOW, TINY = "experiments.tiny_high", "experiments.tiny_low", "experiments.tiny"


def mm(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> str:
    """What a command prints; its mistakes where it has exit status 2."""
    assert app(argv) == status
    printed = capsys.readouterr()
    assert (printed.out if status == 2 else printed.err) == ""
    return printed.err if status == 2 else printed.out


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    page = mm(capsys, "--help")
    for line in (
        "  diff      Print what differs between two specs, grouped by what it can change.",
        "  hash      Print the two ids of a spec.",
        "  plan      Count parameters, tokens, FLOPs and bytes per rank of a spec.",
        "  runs      List, find and show runs.",
        "  show      Show what a spec says, as a page, JSON, YAML or one line per field.",
    ):
        assert line in page.splitlines()
    assert mm(capsys) == page
    assert mm(capsys, "--version") == "mm 0.1.0\n"


@pytest.mark.parametrize("verb", ["show", "hash", "diff", "plan", "runs"])
def test_every_verb_teaches(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = mm(capsys, verb, "--help")
    assert page.startswith(f"usage: mm {verb} ")
    assert "\nexamples\n" in page
    assert "--runs-dir DIR" in page
    assert max(map(len, page.splitlines())) <= 80
    assert mm(capsys, verb, "-h") == page


def test_an_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    told = mm(capsys, "hsh", status=2)
    assert told.startswith("'hsh' is no verb of mm; did you mean hash?; verbs: diff, ")


def test_hash_prints_both_ids(capsys: pytest.CaptureFixture[str]) -> None:
    spec = tiny_high.SPEC
    assert mm(capsys, "hash", HIGH) == f"spec {spec_hash(spec)}\nexact {exact_hash(spec)}\n"
    changed = replace(spec, {"optim.lr": 1e-4, "data.workers": 3})
    printed = mm(capsys, "hash", HIGH, "--spec.lr", "1e-4", "--spec.workers=3")
    assert printed == f"spec {spec_hash(changed)}\nexact {exact_hash(changed)}\n"


def test_a_verb_tells_all_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    told = mm(capsys, "hash", HIGH, "--spec.lr", "-1", "--spec.num-frames", "16", "--jsn", status=2)
    assert told.splitlines() == [
        "spec.optim.lr: must be > 0, got -1.0",
        "--jsn: unknown flag; see --help",
        "spec.data.num_frames: 16 frames are not of the form 4k+1; nearest: 13 or 17",
    ]
    told = mm(capsys, "diff", "tiny_hgh", HIGH, "--spec.lrr", "1", status=2)
    assert [line.split(":")[0] for line in told.splitlines()] == ["tiny_hgh", "--spec.lrr"]


def test_the_number_of_targets_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    usage = "(usage: mm hash TARGET [--spec.FIELD VALUE ...] [--runs-dir DIR])"
    assert mm(capsys, "hash", status=2) == f"expected one target, got none {usage}\n"
    assert mm(capsys, "hash", HIGH, LOW, status=2) == f"expected one target, got 2: {HIGH} {LOW} {usage}\n"
    told = mm(capsys, "hash", "--spec.lr", "1", HIGH, status=2)
    assert told == f"expected one target, got none; targets come before --spec flags {usage}\n"


def test_show_as_files_that_load_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = replace(tiny.SPEC, {"sampler.steps": 7, "name": "tiny"})
    for kind in ("json", "yaml"):
        path = tmp_path / f"spec.{kind}"
        path.write_text(mm(capsys, "show", TINY, "--format", kind, "--spec.steps", "7"))
        assert load(path) == spec


def test_show_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = mm(capsys, "show", HIGH, "--format=flat").splitlines()
    assert [line.partition(" = ")[0] for line in lines] == [
        f"spec.{leaf.path}" for leaf in leaves(tiny_high.SPEC)
    ]
    first, second = tiny_high.SPEC.optim.betas
    assert f"spec.optim.betas = {first} {second}" in lines
    assert "spec.schedule.decay = cosine" in lines


def test_show_as_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = mm(capsys, "show", TINY)
    assert page.startswith(f"tiny  infer\n  spec_hash   {spec_hash(tiny.SPEC)[:12]}\n")
    assert "  height      64 pixels\n" in page
    assert f"spec_hash {spec_hash(tiny_high.SPEC)[:12]}" in page
    assert "'a red circle moving left' 'a red circle moving right' ... (32 in all)" in " ".join(page.split())
    told = mm(capsys, "show", TINY, "--format", "ymal", status=2)
    assert told == "--format: expected one of summary, json, yaml, flat, got 'ymal'; did you mean yaml?\n"


def test_diff_groups_by_role_and_its_status_tells(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--spec.lr", "1e-4", "--spec.num-frames", "13", "--spec.workers", "3", "--spec.name", "x")
    assert mm(capsys, "diff", HIGH, HIGH, *flags, status=1).splitlines() == [
        "semantic (in spec_hash and exact_hash)",
        "  spec.data.num_frames: 17 -> 13 frames",
        f"  spec.optim.lr: {tiny_high.SPEC.optim.lr} -> 0.0001",
        "execution (in exact_hash only)",
        "  spec.data.workers: 2 -> 3",
        "location (in no hash)",
        "  spec.name: 'tiny_high' -> 'x'",
    ]
    assert mm(capsys, "diff", HIGH, HIGH) == "equal\n"
    assert mm(capsys, "diff", HIGH, HIGH, "--spec.name", "x") == (
        "location (in no hash)\n  spec.name: 'tiny_high' -> 'x'\n"
    )


def test_diff_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(mm(capsys, "diff", HIGH, LOW, "--json", status=1))
    assert report["equal"] is False
    assert report["spec_hash"] == [spec_hash(tiny_high.SPEC), spec_hash(tiny_low.SPEC)]
    by_path = {change["path"]: change for change in report["changes"]}
    assert by_path["spec.expert"] == {
        "path": "spec.expert",
        "role": "semantic",
        "old": "high_noise",
        "new": "low_noise",
        "unit": None,
        "by_hash": False,
    }
    assert by_path["spec.start_from"]["new"]["kind"] == "trained-by"


def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (json.loads(mm(capsys, "plan", HIGH, "--json", "--world-size", size)) for size in ("1", "2"))
    assert one["parameters"] == tiny_high.SPEC.model.parameter_count()
    assert two["bytes_per_rank"]["optimizer"] * 2 == one["bytes_per_rank"]["optimizer"]
    page = mm(capsys, "plan", HIGH, "--world-size", "2")
    assert page.startswith("plan for 2 ranks\n")
    assert f"{one['parameters']:,} per network" in page
    told = mm(capsys, "plan", HIGH, "--world-size", "0", status=2)
    assert told == "--world-size: expected a whole number of at least 1, got '0'\n"


def test_plan_knows_the_rules_between_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    told = mm(capsys, "plan", HIGH, "--world-size", "5", status=2)
    assert "spec.data.batch_size" in told


def test_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--runs-dir", str(tmp_path))
    assert mm(capsys, "runs", *place) == f"no runs in {tmp_path}\n"
    finished = open_run(replace(tiny_high.SPEC, "name", "high"), RunOptions(runs_dir=tmp_path))
    finished.finish({"loss": 0.5})
    failed = open_run(replace(tiny_low.SPEC, "name", "low"), RunOptions(runs_dir=tmp_path))
    failed.fail("the loss is not finite")

    table = mm(capsys, "runs", "list", *place).splitlines()
    assert [line.split()[:4] for line in table[-2:]] == [
        [f"low/{failed.path.name}", "train", "failed", spec_hash(tiny_low.SPEC)[:12]],
        [f"high/{finished.path.name}", "train", "finished", spec_hash(tiny_high.SPEC)[:12]],
    ]
    for condition in (["--status", "failed"], ["--name", "low"]):
        (row,) = json.loads(mm(capsys, "runs", "list", *condition, "--json", *place))
        assert row["name"] == "low"
    (row,) = json.loads(mm(capsys, "runs", "find", spec_hash(tiny_high.SPEC)[:8], "--json", *place))
    assert row["name"] == "high"

    page = mm(capsys, "runs", "show", "low", *place)
    assert "the loss is not finite" in page
    assert "provenance.json" in page
    shown = json.loads(mm(capsys, "runs", "show", finished.path.name, "--json", *place))
    assert shown["result"] == {"loss": 0.5}
    assert shown["folder"] == str(finished.path)


def test_runs_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--runs-dir", str(tmp_path))
    assert mm(capsys, "runs", "lst", "--sttus", "x", *place, status=2).splitlines() == [
        "--sttus: unknown flag; did you mean --status?",
        "expected list, find or show, got 'lst'; did you mean list?",
    ]
    assert mm(capsys, "runs", "find", *place, status=2) == "mm runs find takes 1 argument(s), got 0\n"
    told = mm(capsys, "runs", "show", "abcdef", *place, status=2)
    assert told == f"abcdef: no run in {tmp_path} has this id, label or hash\n"


def test_a_reader_that_closes_the_pipe_ends_mm_quietly() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mm_config", "show", TINY, "--format", "flat"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 141
    process.stderr.close()
