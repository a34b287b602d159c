"""`mm` and its verbs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import tiny, tiny_high, tiny_low
from mm_config import exact_hash, load, replace, spec_hash
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run
from mm_config.schema.evolve import get, leaves
from tests.mm_config.mm_in_process import HIGH, LOW, TINY, mm

ROOT = Path(__file__).parents[2]


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    page = mm(capsys, "--help")
    assert max(map(len, page.splitlines())) <= 80
    verbs = dict(re.findall(r"^  (\w+) +(\w.*)$", re.sub(r"\n {6,}", " ", page), re.MULTILINE))
    assert verbs["diff"] == "Print what differs between two specs, grouped by what it can change."
    assert verbs["hash"] == "Print the two ids of a spec."
    assert verbs["show"] == "Show what a spec says, as a page, a file, an experiment or one line per field."
    assert {"plan", "runs", "reproduce", "doctor", "completion"} <= set(verbs)
    assert mm(capsys) == page
    assert mm(capsys, "--version") == "mm 0.1.0\n"
    assert mm(capsys, "--version", "hash", status=2) == "--version: stands alone, got hash\n"
    assert mm(capsys, "help", "hash") == mm(capsys, "--help", "hash") == mm(capsys, "hash", "--help")


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
    assert told.startswith("'hsh' is no verb of mm; did you mean hash?; verbs: ")


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
    usage = "(usage: mm hash TARGET [--layers] [--spec.FIELD VALUE ...] [--runs-dir DIR])"
    assert mm(capsys, "hash", status=2) == f"expected TARGET, got none {usage}\n"
    assert mm(capsys, "hash", HIGH, LOW, status=2) == f"expected TARGET, got {HIGH} {LOW} {usage}\n"
    told = mm(capsys, "hash", "--spec.lr", "1", HIGH, status=2)
    assert told == f"expected TARGET, got none; targets come before --spec flags {usage}\n"


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
    first, second = get(tiny_high.SPEC, "optim.betas")
    assert f"spec.optim.betas = {first} {second}" in lines
    assert "spec.schedule.decay = cosine" in lines


def test_show_as_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "again.py"
    written.write_text(mm(capsys, "show", TINY, "--format", "python", "--spec.steps", "7"))
    assert mm(capsys, "hash", str(written)) == mm(capsys, "hash", TINY, "--spec.steps", "7")
    again = mm(capsys, "diff", TINY, str(written), "--spec.steps", "20")
    assert again.endswith("\n\nequal in every field\n")
    command = [sys.executable, str(written), "--help"]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"mm plan {written}" in page


def test_show_of_a_class_in_a_script_as_an_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "own.py"
    script.write_text(
        "from experiments import tiny_high\nfrom mm_config import replace\n"
        "from mm_config.schema.decorator import spec\n"
        "from mm_config.specs.kinds import DatasetSpec\n"
        "@spec('scripted-dataset')\nclass Scripted(DatasetSpec):\n    'Clips.'\n"
        "SPEC = replace(tiny_high.SPEC, 'data.dataset', Scripted())\n"
    )
    told = mm(capsys, "show", str(script), "--format", "python", status=2)
    assert told == (
        "spec.data.dataset: Scripted is defined in the script own, which an experiment file can't import it "
        "from; move the class into a module of a package, or use --format json\n"
    )


def test_show_as_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = mm(capsys, "show", TINY)
    assert page.startswith(
        f"tiny  infer  spec {spec_hash(tiny.SPEC)[:12]}  exact {exact_hash(tiny.SPEC)[:12]}\n"
    )
    told = mm(capsys, "show", TINY, "--format", "ymal", status=2)
    known = "summary, json, yaml, layers, python, flat"
    assert told == f"--format: expected one of {known}, got 'ymal'; did you mean yaml?\n"


def test_lines_of_a_spec_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    flag = ("--spec.negative-prompt", "it's\na\\ttab")
    lines = mm(capsys, "show", TINY, "--format", "flat", *flag).splitlines()
    assert "spec.negative_prompt = $'it\\'s\\na\\\\ttab'" in lines
    assert len(lines) == len(list(leaves(tiny.SPEC)))


def test_layers_have_ids_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    lines = mm(capsys, "hash", TINY, "--layers").splitlines()
    assert [line.split()[0] for line in lines] == ["spec", "exact", "model", "inference", "request"]
    other = mm(capsys, "hash", TINY, "--layers", "--spec.seeds", "7").splitlines()
    assert [a == b for a, b in zip(lines, other, strict=True)] == [False, False, True, True, False]


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
    elsewhere = tmp_path / "typo"
    told = f"no runs in {elsewhere}: there is no such folder\n"
    assert mm(capsys, "runs", "--runs-dir", str(elsewhere)) == told
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
        "expected list, find, show, compare, reindex, rm or gc, got 'lst'; did you mean list?",
    ]
    assert mm(capsys, "runs", "find", *place, status=2).startswith(
        "expected find TEXT, got find (usage: mm runs"
    )
    told = mm(capsys, "runs", "show", "abcdef", *place, status=2)
    assert told == f"abcdef: no run in {tmp_path} has this id, label or hash\n"


@pytest.mark.parametrize(
    ("flag", "words"),
    [("--world-size", ["plan", HIGH]), ("--limit", ["runs"]), ("--verify-steps", ["reproduce", "7f3a91c2"])],
)
def test_a_whole_number_that_is_none_is_one_line(
    flag: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("0", "-1", "1e3", "1.5", "\u0663", "9" * 5000):
        (told,) = mm(capsys, *words, f"{flag}={text}", status=2).splitlines()
        assert told.startswith(f"{flag}: expected a whole number of at least 1, got '")
        assert len(told) < 150


def test_run_page_tells_where_the_run_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = open_run(replace(tiny_high.SPEC, "name", "high"), RunOptions(runs_dir=tmp_path))
    run.finish({"kind": "train", "loss": 0.5, "checkpoint": "x" * 90, "losses": list(range(90))})
    page = mm(capsys, "runs", "show", "high", "--runs-dir", str(tmp_path))
    facts = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in page.splitlines()}
    assert facts["python"] == json.loads((run.path / "provenance.json").read_text())["python"]
    assert any(name.startswith("git ") for name in facts)
    assert facts["result.checkpoint"] == "x" * 90
    assert facts["result.losses"] == "(90 items)"
    assert "problem" not in facts and "result.kind" not in facts


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
