"""Completion: what is offered at the cursor, and that bash and zsh complete and run a line with it."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import tiny, tiny_high
from mm_config import replace, spec_hash
from mm_config.cli.app import app
from mm_config.cli.completing import candidates
from mm_config.cli.verb import verbs
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run
from mm_config.schema.errors import UserError
from mm_config.schema.evolve import leaves
from mm_config.specs.optim import Decay

ROOT = Path(__file__).parents[2]
HIGH, TINY = "experiments.tiny_high", "experiments.tiny"
PROMPT = "READY> "
SECONDS = 60
"""After which a shell that has not answered fails the test."""
needs_zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")


def texts(*words: str) -> list[str]:
    return [one.text for one in candidates(words)]


def test_verbs() -> None:
    assert texts("") == verbs()
    assert texts("ha") == ["hash"]
    assert texts("--") == ["--help", "--version"]


def test_verbs_of_a_group() -> None:
    assert {"index", "inspect"} <= set(texts("data", ""))
    assert texts("data", "ind") == ["index"]
    assert texts("data", "index", "--na") == ["--name"]
    assert "windows" in texts("data", "index", "--pieces", "")


def test_flags_of_a_verb_and_their_choices() -> None:
    assert texts("show", HIGH, "--f") == ["--format"]
    assert {"json", "yaml", "flat", "summary"} <= set(texts("show", HIGH, "--format", ""))
    assert texts("show", HIGH, "--format=ya") == ["--format=yaml"]
    assert texts("completion", "") == ["bash", "zsh"]
    assert texts("completion", "bash", "") == []
    assert "--format" not in texts("show", HIGH, "--format", "json", "--")
    assert texts("plan", HIGH, "--world-size", "") == [], "a number can't be guessed"
    assert texts("plan", HIGH, "--runs-dir", "") == [], "the shell completes names of files itself"


def test_all_fields_and_short_names_of_the_targets_kind() -> None:
    offered = texts("hash", HIGH, "--spec.")
    assert {"--spec.optim.lr", "--spec.lr", "--spec.schedule.steps", "--spec.data.num_frames"} <= set(offered)
    paths = [f"--spec.{leaf.path}" for leaf in leaves(tiny_high.SPEC)]
    assert {text for text in offered if text.startswith("--spec.schedule.")} == {
        path for path in paths if path.startswith("--spec.schedule.")
    }
    assert "--spec.sampler.steps" not in offered
    assert "--spec.sampler.steps" in texts("hash", TINY, "--spec.")
    assert "--spec.lr" not in texts("hash", HIGH, "--spec.lr", "1", "--spec.")
    assert texts("hash", HIGH, "--sp") == ["--spec."]
    assert texts("hash", HIGH, "--spec.data.num-fr") == ["--spec.data.num-frames"]


def test_fields_of_a_training_whose_outcome_is_used_open_one_by_one() -> None:
    assert texts("hash", TINY, "--spec.high_noise.") == [
        "--spec.high_noise.spec.",
        "--spec.high_noise.average",
    ]
    assert "--spec.high_noise.spec.optim.lr" in texts("hash", TINY, "--spec.high_noise.spec.opt")
    assert "--spec.low_noise.spec." in texts("hash", TINY, "--spec.")


def test_values_of_enums_and_bools() -> None:
    assert {"constant", "cosine"} <= set(texts("hash", HIGH, "--spec.schedule.decay", ""))
    assert texts("hash", HIGH, "--spec.schedule.decay", "cos") == ["cosine"]
    assert texts("hash", HIGH, "--spec.schedule.decay=cos") == ["--spec.schedule.decay=cosine"]
    assert texts("hash", TINY, "--spec.build-missing", "") == ["True", "False"]
    assert texts("hash", TINY, "--spec.no_b") == ["--spec.no_build_missing"]
    assert texts("hash", TINY, "--spec.no_build_missing", "") == []
    assert texts("hash", HIGH, "--spec.lr", "") == []


def test_what_a_field_means() -> None:
    (lr,) = candidates(("hash", HIGH, "--spec.optim.lr"))
    (alias,) = candidates(("hash", HIGH, "--spec.lr"))
    assert lr.about.endswith(f"(default: {tiny_high.SPEC.optim.lr})")
    assert alias.about == f"optim.lr: {lr.about}"


def test_targets_are_experiments_files_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (
        "experiments/a.py",
        "experiments/b.py",
        "experiments/__init__.py",
        "my specs/c.yaml",
        "d.txt",
        "e.mp4",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    monkeypatch.chdir(tmp_path)
    assert texts("hash", "") == ["e.mp4", "experiments/a.py", "experiments/b.py", "my specs/"]
    assert texts("diff", "experiments/a.py", "exp") == ["experiments/a.py", "experiments/b.py"]
    assert texts("hash", "my specs/") == ["my specs/c.yaml"]
    assert texts("hash", f"{tmp_path}/my") == [f"{tmp_path}/my specs/"]

    run = open_run(replace(tiny_high.SPEC, "name", "high"), RunOptions(runs_dir=Path("runs")))
    run.finish({})
    run_id, digits = f"high/{run.path.name}", spec_hash(tiny_high.SPEC)[:12]
    assert run_id in texts("hash", "")
    assert texts("hash", "hi") == texts("generate", "e.mp4", "--like", "") == [run_id]
    assert texts("hash", digits[:6]) == [digits]
    assert texts("hash", run.path.name[:-1]) == [run.path.name]
    assert "--spec.optim.lr" in texts("hash", digits, "--spec.op")


def test_runs_of_another_folder(tmp_path: Path) -> None:
    run = open_run(replace(tiny.SPEC, "name", "mine"), RunOptions(runs_dir=tmp_path))
    assert texts("hash", "--runs-dir", str(tmp_path), "mi") == [f"mine/{run.path.name}"]
    run.fail("enough")


def test_a_module_can_be_a_target() -> None:
    assert "experiments.tiny_low" in texts("show", "experiments.tiny_l")


def test_fields_need_a_target_before_them() -> None:
    assert texts("hash", "--spec.") == []
    assert texts("hash", "--spec.schedule.decay", "") == []
    assert texts("doctor", "--s") == []


def test_mistakes_are_the_callers_to_handle() -> None:
    with pytest.raises(UserError):
        texts("hsh", "")
    with pytest.raises(UserError):
        texts("hash", "no/such/file.py", "--spec.")


def complete(cwd: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mm_config", "_complete", *argv],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_goes_wrong_completes_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text("print('noise')\nraise SystemExit('no')")
    for argv in (
        ("zsh", "hash", "raises.py", "--spec."),
        ("zsh", "hsh", ""),
        ("bash", "mm hash raises.py --spec.", "=:"),
        ("bash",),
        (),
    ):
        done = complete(tmp_path, *argv)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), argv


def test_the_answer_is_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["--help"]) == 0
    assert "_complete" not in capsys.readouterr().out


def test_completing_imports_nothing_slow() -> None:
    code = (
        "import sys; from mm_config.cli.app import app\n"
        f"app(['_complete', 'bash', 'mm hash {HIGH} --spec.schedule.decay co', '=:'])\n"
        "print(*sorted({'tyro', 'sqlalchemy', 'rich', 'torch', 'numpy'} & set(sys.modules)))"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert printed.splitlines()[-2:] == ["cosine", ""]


def test_other_shells_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["completion", "bsh", "--fast"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "--fast: unknown flag",
        "expected bash or zsh, got 'bsh'; did you mean bash?",
    ]


def environment(home: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(home), "TERM": "dumb", "PS1": PROMPT}


def test_bash_calls_the_function(tmp_path: Path) -> None:
    lines = {
        "mm ha": "hash",
        "mm show experiments/tiny_hi": "experiments/tiny_high.py",
        f"mm hash {HIGH} --spec.schedule.decay=cos": "cosine",
        "mm show my\\ f": "my\\ folder/",
        "mm hsh x": "",
    }
    (tmp_path / "my folder").mkdir()
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    script = 'eval "$(mm completion bash)"\ncomplete -p mm\n'
    for line in lines:
        script += (
            f"COMP_LINE='{line}' COMP_POINT={len(line)}; _mm mm; "
            """printf '%s\\n' "${#COMPREPLY[@]} ${COMPREPLY[*]}"\n"""
        )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    registered, *replies = done.stdout.splitlines()
    assert registered == "complete -o bashdefault -o default -F _mm mm"
    assert replies == [f"1 {reply}" if reply else "0 " for reply in lines.values()]
    assert done.stderr == ""


def typed(shell: list[str], lines: list[str], home: Path) -> str:
    """What an interactive shell shows on a terminal; each line is typed when the prompt is there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execvpe(shell[0], shell, environment(home))
    shown, ends = "", time.monotonic() + SECONDS
    try:
        for line in [*lines, "exit"]:
            already = len(shown)
            while PROMPT not in shown[already:]:
                if not select.select([terminal], [], [], max(0, ends - time.monotonic()))[0]:
                    raise AssertionError(f"{shell[0]} did not come back to its prompt: {shown!r}")
                shown += os.read(terminal, 65536).decode(errors="replace")
            os.write(terminal, f"{line}\r".encode())
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return shown


@pytest.mark.parametrize(
    "shell", [["bash", "--norc", "--noprofile", "-i"], pytest.param(["zsh", "-f", "-i"], marks=needs_zsh)]
)
def test_a_line_completed_in_a_terminal_runs(shell: list[str], tmp_path: Path) -> None:
    lines = [
        f'eval "$(mm completion {shell[0]})"',
        "mm ha\texperiments/tiny_hi\t--spec.schedule.decay lin\t--spec.optim.ep\t1e-7",
    ]
    spec = replace(tiny_high.SPEC, {"schedule.decay": Decay.LINEAR, "optim.eps": 1e-7})
    assert f"spec {spec_hash(spec)}" in typed(shell, lines, tmp_path)


@needs_zsh
def test_zsh_tells_what_fields_mean(tmp_path: Path) -> None:
    shown = typed(
        ["zsh", "-f", "-i"],
        ['eval "$(mm completion zsh)"', f"mm hash {HIGH} --spec.schedule.\t\x15true"],
        tmp_path,
    )
    assert re.search(r"--spec\.schedule\.steps  -- \S", shown)
