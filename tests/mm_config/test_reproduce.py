"""`mm reproduce`, on runs of an installed package that can be made to drift."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from experiments.tiny_high import SPEC
from mm_config import replace, spec_hash
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run
from mm_config.runs.index import open_index
from mm_config.runs.record import RunStatus
from mm_config.schema.errors import UserError
from tests.mm_config.walking import WALKING, Place, content_of


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an installed distribution that runs its kind of spec, also seen by this process."""
    site = tmp_path_factory.mktemp("site")
    metadata = site / "walking-1.0.dist-info"
    metadata.mkdir()
    (site / "walking.py").write_text(WALKING)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: walking\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[mm.runners]\nwalk = walking:run\n[mm.specs]\nwalk = walking\n"
    )
    sys.path.insert(0, str(site))
    import_module("walking")
    yield site
    sys.path.remove(str(site))


@pytest.fixture
def place(
    tmp_path: Path, site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Place:
    (tmp_path / "walk.py").write_text(
        "from mm_config import main\nfrom walking import WalkSpec\n\nmain(WalkSpec())\n"
    )
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, site, capsys, monkeypatch)


def test_an_identical_run_is_found_by_eight_digits_and_left_as_it_is(place: Place) -> None:
    folder, digits = place.walk_in_a_process()
    before = content_of(folder)
    done = place.process("-m", "mm_config", "reproduce", digits)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"reproducing runs/walk/{folder.name} (spec {folder.name.split('-')[1]})",
        "walking",
        "identical: 4 steps (loss, grad_norm, lr), 1 checkpoint (step 4), score (luck)",
        f"  stored      runs/walk/{folder.name}",
        f"  reproduced  runs/reproductions/walk/{folder.name}",
    ]
    assert content_of(folder) == before
    report = json.loads(
        (place.path / "runs/reproductions/walk" / folder.name / "reproduction.json").read_text()
    )
    assert report["identical"] is True
    assert report["stored"] == str(folder)

    # Whoever looks for the spec's runs still finds the stored one alone, and so does a second reproduction.
    (record,) = open_index(place.path / "runs").list()
    assert record.path == f"walk/{folder.name}"
    again = place.reproduce(digits)
    assert again.returncode == 0
    assert again.stdout.splitlines()[-1].endswith("-2")


def test_the_first_value_that_differs_is_named_and_the_rest_counted(place: Place) -> None:
    folder, digits = place.walk()
    weights = folder / "checkpoints" / "step-00000004" / "weights"
    weights.write_text("flipped")
    done = place.reproduce(digits, "--json", drift=2)
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == ["walking"], "stdout holds nothing but the JSON"
    report = json.loads(done.stdout)
    assert not report["identical"]
    assert report["compared"] == {"steps": 4, "checkpoints": [4], "videos": 0, "scores": ["luck"]}
    first, second = report["differences"]
    assert [first[name] for name in ("where", "value", "old", "new")] == ["step 2", "loss", "0.5", "0.75"]
    assert (first["share"], first["damaged"], second["damaged"]) == (1 / 3, False, True)
    assert (second["where"], second["value"]) == ("step 4", "checkpoint weights")
    assert "since it was written" in second["old"]

    told_to_a_person = place.reproduce(str(folder), drift=2)
    assert told_to_a_person.returncode == 1
    lines = told_to_a_person.stdout.splitlines()
    assert lines[2] == "step 2: loss 0.5 -> 0.75"
    assert lines[3].startswith("  different   the first of 2 values; compared 4 steps")


def test_verify_steps_stops_on_the_way_and_says_so(place: Place) -> None:
    folder, digits = place.walk()
    done = place.reproduce(digits, "--verify-steps", "3")
    assert done.returncode == 0, done.stderr
    assert "identical: 3 steps (loss, grad_norm, lr), no checkpoint of a step that both have" in done.stdout
    new = place.path / "runs" / "reproductions" / "walk" / folder.name
    status = json.loads((new / "status.json").read_text())
    assert status["status"] == "interrupted"
    assert status["reason"] == "StoppedEarly: stopped after step 3 of 4, as asked; it can be resumed"
    assert status["spec_hash"] == json.loads((folder / "status.json").read_text())["spec_hash"]
    # A difference that lies beyond is not met.
    assert place.reproduce(digits, "--verify-steps", "1", drift=2).returncode == 0

    beyond = place.reproduce(digits, "--verify-steps", "5")
    assert (beyond.returncode, beyond.stdout.splitlines()[1:]) == (2, [])
    told = f"--verify-steps: walk/{folder.name} has 4 steps to compare with, got 5\n"
    assert beyond.stderr == told


def test_an_unfinished_run_is_compared_as_far_as_it_came(place: Place) -> None:
    folder, _ = place.walk()
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    # Killed while it logged step 3 again, after a resume from step 1.
    (folder / "metrics.jsonl").write_text(f'{lines[0]}{{"step": 2, "loss": 9}}\n{lines[1]}{lines[2][:9]}')
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "status": "running", "finished_at": None}))
    (folder / "result.json").unlink()
    done = place.reproduce(str(folder), drift=3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical: 2 steps" in done.stdout


def test_what_has_changed_since_is_warned_of_before_it_runs(place: Place) -> None:
    git = ["git", "-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    (place.path / ".gitignore").write_text("runs\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], cwd=place.path, check=True)
    folder, digits = place.walk_in_a_process()
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "second"], cwd=place.path, check=True)
    (place.path / "walk.py").write_text("# edited\n")
    for number in range(5):
        (place.path / f"notes-{number}.txt").touch()
    metadata = place.site / "walking-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "1.1"))
    done = place.process("-m", "mm_config", "reproduce", digits, "--json", OMP_NUM_THREADS="7")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert lines.index(warnings[-1]) < lines.index("walking")
    threads = json.loads((folder / "provenance.json").read_text())["threads"]
    name = f"git {place.path.name}"
    commits = [
        subprocess.run(
            [*git, "rev-parse", ref], cwd=place.path, check=True, capture_output=True, text=True
        ).stdout
        for ref in ("HEAD~1", "HEAD")
    ]
    assert f"warning: threads: {threads} -> 7" in warnings
    assert "warning: package walking: 1.0 -> 1.1" in warnings
    assert f"warning: {name}, commit: {' -> '.join(map(str.strip, commits))}" in warnings
    assert any(line.startswith(f"warning: {name}, uncommitted changes: none -> patch ") for line in warnings)
    notes = "notes-0.txt, notes-1.txt, notes-2.txt and 2 more"
    assert f"warning: {name}, untracked files: none -> {notes}" in warnings
    told = {
        f"warning: {change['name']}: {change['old']} -> {change['new']}"
        for change in json.loads(done.stdout)["provenance"]
    }
    assert told == set(warnings)


def test_a_run_whose_spec_was_edited_is_not_run_again(place: Place) -> None:
    folder, digits = place.walk()
    file = folder / "spec.json"
    file.write_text(file.read_text().replace('"steps": 4', '"steps": 3'))
    for target in (digits, str(folder)):
        done = place.reproduce(target)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"{file}: is not what the run was started with: spec_hash is ")
        assert done.stderr.count("\n") == 1
    assert not (place.path / "runs" / "reproductions").exists()


def test_a_run_without_steps_can_be_verified_neither_in_part_nor_as_a_whole(place: Place) -> None:
    folder, digits = place.walk(steps=0)
    done = place.reproduce(digits)
    assert done.returncode == 2
    assert done.stderr == f"walk/{folder.name}: has no steps and no videos to compare with\n"
    (folder / "samples").mkdir()
    (folder / "samples" / "a-circle.mp4").write_bytes(b"")
    part = place.reproduce(digits, "--verify-steps", "3")
    assert part.returncode == 2
    assert part.stderr.startswith(
        f"--verify-steps: applies to trainings; walk/{folder.name}, a run of kind 'walk', "
    )
    assert not (place.path / "runs" / "reproductions").exists()


def test_every_mistake_on_the_command_line_is_one_line(place: Place) -> None:
    done = place.reproduce("a", "b", "--verify-steps", "x", "--spec.steps", "3", "--verify")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "--verify-steps: expected a whole number of at least 1, got 'x'",
        "--spec.steps: no field of a spec can be changed here",
        "--verify: unknown flag; did you mean --verify-steps?",
        "expected RUN, got a b (usage: mm reproduce HASH|RUN|VIDEO [--verify-steps N] [--like RUN] [--json] "
        "[--runs-dir DIR] [--location NAME=PATH ...])",
    ]
    assert place.reproduce("a", "--location", "y").stderr == "--location: expected NAME=PATH, got 'y'\n"


def mistake(target: str, runs_dir: Path, *flags: str) -> str:
    from mm_config.cli.verbs.reproduce import VERB

    with pytest.raises(UserError) as caught:
        VERB.run([target, "--runs-dir", str(runs_dir), *flags])
    (problem,) = caught.value.problems
    return str(problem)


def test_a_target_that_names_no_run_or_several_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    named = replace(SPEC, "name", "tiny_high")
    opened = open_run(named, RunOptions(runs))
    assert (
        mistake("abcdef12", runs)
        == f"abcdef12: no run in {runs} has this id or hash, and there is no such folder"
    )
    assert mistake("abc", runs) == "abc: a hash prefix needs at least 6 hex digits"
    assert mistake("tiny_high", runs).startswith("tiny_high: is the label of tiny_high/")
    assert "is no run folder" in mistake(str(tmp_path), runs)
    digits = spec_hash(named)[:12]
    assert "has no steps" in mistake(digits, runs), "it was found"
    assert "the spec names nothing 'elsewhere'" in mistake(digits, runs, "--location", "elsewhere=/")

    other = open_run(replace(named, "seed", 1), RunOptions(runs))
    record = json.loads((other.path / "status.json").read_text())
    (other.path / "status.json").write_text(json.dumps({**record, "exact_hash": digits[:6] + 58 * "0"}))
    open_index(runs).reindex()
    ambiguous = mistake(digits[:6], runs)
    assert ambiguous.startswith(f"{digits[:6]}: is ambiguous: ")
    assert opened.record.path in ambiguous
    assert other.record.path in ambiguous


def test_reproductions_are_apart_from_the_runs_that_lookups_find(tmp_path: Path) -> None:
    named = replace(SPEC, "name", "tiny_high")
    stored = open_run(named, RunOptions(tmp_path))
    stored.fail("a signal", RunStatus.INTERRUPTED)
    again = open_run(named, RunOptions(tmp_path, repeats=stored.path))
    again.finish({"checkpoint": "elsewhere"})
    assert again.path.parent == tmp_path / "reproductions" / "tiny_high"
    for _ in range(2):
        index = open_index(tmp_path)
        assert [index.folder(record) for record in index.list()] == [stored.path]
        assert index.find_finished(spec_hash(named)) == ()
        index.reindex()
    resumed = open_run(named, RunOptions(tmp_path, resume="latest"))
    assert resumed.path.samefile(stored.path)
