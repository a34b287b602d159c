"""A target is a path, a module, a run id or a hash prefix, in this order."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from experiments import tiny, tiny_high
from mm_config import dump, exact_hash, replace, spec_hash
from mm_config.cli.targets import resolve
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run
from mm_config.runs.index import open_index
from mm_config.schema.errors import UserError
from mm_config.schema.root import RootSpec

ROOT = Path(__file__).parents[2]
HIGH = replace(tiny_high.SPEC, "name", "tiny_high")
LOCAL = """
from values import WIDTH
from experiments.tiny_high import SPEC as BASE
from mm_config import replace

SPEC = replace(BASE, "model.ffn_dim", WIDTH)
"""


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    return RunOptions(runs_dir=tmp_path / "runs")


def mistake(target: str, options: RunOptions) -> str:
    with pytest.raises(UserError) as caught:
        resolve(target, options)
    (problem,) = caught.value.problems
    return str(problem)


def stored(spec: RootSpec, options: RunOptions) -> Path:
    run = open_run(spec, options)
    run.finish({})
    return run.path


def test_an_experiment_by_path_and_by_module(options: RunOptions) -> None:
    assert resolve(str(ROOT / "experiments" / "tiny_high.py"), options) == HIGH
    assert resolve("experiments.tiny_high", options) == HIGH
    assert "tiny_high" not in sys.modules, "it is imported once, under its module name"


def test_an_experiment_elsewhere_is_imported_with_its_neighbours(tmp_path: Path, options: RunOptions) -> None:
    (tmp_path / "values.py").write_text("WIDTH = 64\n")
    (tmp_path / "local.py").write_text(LOCAL)
    path = list(sys.path)
    found = resolve(str(tmp_path / "local.py"), options)
    assert found == replace(tiny_high.SPEC, {"model.ffn_dim": 64, "name": "local"})
    assert sys.path == path


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_saved_spec(tmp_path: Path, options: RunOptions, suffix: str) -> None:
    dump(tiny.SPEC, tmp_path / f"saved{suffix}")
    assert resolve(str(tmp_path / f"saved{suffix}"), options) == tiny.SPEC


def test_a_run_by_folder_id_and_both_hashes(options: RunOptions) -> None:
    folder = stored(HIGH, options)
    run_id = folder.relative_to(options.runs_dir).as_posix()
    for target in (
        str(folder),
        run_id,
        folder.name,
        spec_hash(HIGH)[:6],
        exact_hash(HIGH)[:8],
        spec_hash(HIGH),
    ):
        assert resolve(target, options) == HIGH
    assert resolve(spec_hash(HIGH)[:12].upper(), options) == HIGH


def test_a_hash_of_several_runs_of_one_spec_is_the_newest_run(options: RunOptions) -> None:
    stored(HIGH, options)
    stored(replace(HIGH, "data.workers", 7), options)
    assert resolve(spec_hash(HIGH)[:8], options) == replace(HIGH, "data.workers", 7)


def test_a_run_whose_folder_is_gone(options: RunOptions) -> None:
    older, newer = stored(HIGH, options), stored(replace(HIGH, "data.workers", 7), options)
    shutil.rmtree(newer)
    assert resolve(spec_hash(HIGH)[:8], options) == HIGH
    shutil.rmtree(older)
    assert mistake(spec_hash(HIGH)[:8], options) == (
        f"{spec_hash(HIGH)[:8]}: its run folder is gone: {newer}, {older}"
    )


def test_a_name_of_runs_of_different_specs_is_ambiguous(options: RunOptions) -> None:
    first, second = stored(HIGH, options), stored(replace(HIGH, "seed", 1), options)
    same = "20200101-same-1"
    first.rename(first.with_name(same))
    other = options.runs_dir / "other"
    other.mkdir()
    second.rename(other / same)
    (options.runs_dir / "index.sqlite").unlink()
    told = mistake(same, options)
    assert told.startswith(f"{same}: is ambiguous: ")
    assert f"tiny_high/{same} (spec {spec_hash(HIGH)[:12]})" in told
    assert f"other/{same} (spec " in told


@pytest.mark.parametrize(("path", "value"), [("optim.lr", 0.25), ("data.workers", 7)])
def test_a_run_whose_spec_was_edited_is_refused_by_folder_id_and_hash(
    path: str, value: float, options: RunOptions
) -> None:
    folder, changed = stored(HIGH, options), replace(HIGH, path, value)
    (folder / "spec.json").unlink()
    dump(changed, folder / "spec.json")
    for target in (str(folder), folder.name, spec_hash(HIGH)[:8]):
        told = mistake(target, options)
        assert told.startswith(f"{folder / 'spec.json'}: is not what the run was started with: ")
        assert told.endswith("it was edited, or a class changed without a new schema")
    assert resolve(str(folder / "spec.json"), options) == changed

    index = open_index(options.runs_dir)
    index.reindex()
    (record,) = index.find_finished(spec_hash(HIGH))
    assert (record.spec_hash_now, record.exact_hash_now) == (None, None)
    assert index.list(matching=exact_hash(changed)) == (), "what was edited in is not what was run"


def test_a_copy_of_a_runs_spec_without_its_record_is_a_target(tmp_path: Path, options: RunOptions) -> None:
    (tmp_path / "copy").mkdir()
    dump(HIGH, tmp_path / "copy" / "spec.json")
    assert resolve(str(tmp_path / "copy"), options) == HIGH


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("SPEC = (", "SyntaxError: '(' was never closed (ends.py, line 1)"),
        ("1 / 0", "ZeroDivisionError: division by zero ({file}:1)"),
        (
            "import sys\nsys.exit(3)",
            "ends the process (SystemExit: 3); `main(SPEC)` stands under `if __name__",
        ),
    ],
)
def test_an_experiment_that_can_not_be_imported_is_one_line(
    text: str, told: str, tmp_path: Path, options: RunOptions
) -> None:
    file = tmp_path / "ends.py"
    file.write_text(text)
    assert mistake(str(file), options).startswith(f"{file}: {told.format(file=file)}")


def test_a_path_wins_over_a_hash(
    tmp_path: Path, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(HIGH, options)
    monkeypatch.chdir(tmp_path)
    prefix = spec_hash(HIGH)[:6]
    (tmp_path / prefix).mkdir()
    dump(tiny.SPEC, tmp_path / prefix / "spec.json")
    assert resolve(prefix, options) == tiny.SPEC


def test_what_is_not_found_is_told_with_the_nearest_name(options: RunOptions) -> None:
    where = f"(runs are looked up in {options.runs_dir})"
    start = f"no such file, module, run id or hash {where}"
    assert mistake("tiny_hgh", options) == f"tiny_hgh: {start}; did you mean experiments.tiny_high?"
    assert mistake("tiny_high", options) == f"tiny_high: {start}; did you mean experiments.tiny_high?"
    typed = "experiments/tiny_lw.py"
    assert mistake(typed, options) == f"{typed}: {start}; did you mean experiments/tiny_low.py?"
    assert mistake("experiments.nothing_like_it", options).startswith(f"experiments.nothing_like_it: {start}")
    assert mistake("abcdef0123", options) == f"abcdef0123: {start}"
    assert not options.runs_dir.exists()


def test_a_prefix_can_be_too_short(options: RunOptions) -> None:
    stored(HIGH, options)
    prefix = spec_hash(HIGH)[:5]
    assert mistake(prefix, options) == f"{prefix}: a hash prefix needs at least 6 hex digits"


def test_a_label_names_its_runs(options: RunOptions) -> None:
    folder = stored(replace(HIGH, "name", "mine"), options)
    run_id = folder.relative_to(options.runs_dir).as_posix()
    assert mistake("mine", options) == f"mine: is the label of {run_id}; name a run or a hash"


def test_files_that_hold_no_spec(tmp_path: Path, options: RunOptions) -> None:
    cases = {
        "empty.py": ("", "defines no SPEC"),
        "wrong.py": ("SPEC = 3", "SPEC: expected a spec that can be run, got int"),
        "broken.py": ("x = 1\nraise KeyError('lr')", "KeyError: 'lr' ({path}:2)"),
        "notes.txt": (
            "",
            "expected an experiment (.py), a saved spec (.json, .yaml), a video (.mp4), its latents "
            "(.safetensors) or a run folder",
        ),
        "bad.py": (
            "from experiments.tiny_high import SPEC\nfrom mm_config import replace\n"
            "SPEC = replace(SPEC, {'optim.lr': -1.0})",
            "spec.optim.lr: must be > 0, got -1.0",
        ),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / name
        path.write_text(content)
        assert mistake(str(path), options) == f"{path}: {message.format(path=path)}"
    assert (
        mistake(str(tmp_path), options)
        == f"{tmp_path}: is a folder without spec.json, so it is no run folder"
    )
    (tmp_path / "syntax.py").write_text("x = 1\nSPEC = (")
    assert "syntax.py: SyntaxError: " in mistake(str(tmp_path / "syntax.py"), options)
    assert "line 2" in mistake(str(tmp_path / "syntax.py"), options)
    assert mistake("json", options) == "json: defines no SPEC"
