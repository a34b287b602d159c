"""Mistakes in an experiment file, made before its `main` is reached; other programs keep their own hook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WRONG = 'SPEC = replace(tiny_high.SPEC, {"optim.lr": -1.0, "schedule.steps": "x"})\n'
BEFORE = "import sys\nfrom experiments import tiny_high\nfrom mm_config import replace\n"


def run(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    (folder / "mine.py").write_text(body)
    command = [sys.executable, "mine.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "end",
    [
        'if __name__ == "__main__":\n    from mm_config import main\n    main(SPEC)\n',
        "from mm_config import dump, main\nmain(SPEC)\n",
        "import mm_config\nmm_config.main(SPEC)\n",
        "import mm_config as mm\nmm.main(SPEC)\n",
        "from mm_config import main as go\ngo(SPEC)\n",
        "from mm_config import *\nmain(SPEC)\n",
        "from mm_config.cli.main import main\nfrom os.path import *\nmain(SPEC)\n",
        "from mm_config.cli import main\nmain(SPEC)\n",
    ],
)
def test_every_problem_of_an_experiment_is_a_line_with_the_place_that_made_it(
    end: str, tmp_path: Path
) -> None:
    done = run(tmp_path, f"{BEFORE}{WRONG}{end}")
    where = f"{tmp_path / 'mine.py'}:4: "
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"{where}spec.optim.lr: must be > 0, got -1.0",
        f"{where}spec.schedule.steps: expected int, got str 'x'",
    ]


def test_a_mistake_in_another_experiment_that_is_imported_first(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(f"{BEFORE}{WRONG}")
    done = run(tmp_path, "from broken import SPEC\nfrom mm_config import main\nmain(SPEC)\n")
    assert done.returncode == 2
    first, _ = done.stderr.splitlines()
    assert first == f"{tmp_path / 'broken.py'}:4: spec.optim.lr: must be > 0, got -1.0"


def test_another_program_keeps_its_hook_and_its_traceback(tmp_path: Path) -> None:
    done = run(tmp_path, f"{BEFORE}assert sys.excepthook is sys.__excepthook__\n{WRONG}")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert "SpecError: " in done.stderr


@pytest.mark.parametrize(
    "library",
    [
        "def serve():\n    from mm_config import main\n    main(None)\n",
        "import mm_config\nclass Server:\n    def serve(self):\n        mm_config.main(None)\n",
        "import mm_config as mm\nserve = lambda: mm.main(None)\n",
        "import mm_config\nclass mm:\n    main = mm_config.spec_hash\nmm.main\n",
    ],
)
def test_a_program_that_would_run_one_keeps_its_hook(library: str, tmp_path: Path) -> None:
    done = run(tmp_path, f"{library}import sys, mm_config\nassert sys.excepthook is sys.__excepthook__\n")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_hook_that_was_there_is_kept_by_others_and_asked_by_experiments(tmp_path: Path) -> None:
    own = "import sys\nsys.excepthook = lambda kind, *_: print(kind.__name__)\nimport mm_config\n1 / 0\n"
    assert run(tmp_path, own).stdout == "ZeroDivisionError\n"
    done = run(tmp_path, own.replace("import mm_config", "from mm_config import main"))
    assert done.stdout == "ZeroDivisionError\n"


def test_ipython_keeps_its_hook(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "import builtins, sys\nbuiltins.__IPYTHON__ = True\nfrom mm_config import main\n"
        "assert sys.excepthook is sys.__excepthook__\n",
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_pytest_keeps_its_hook(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it():\n    before = sys.excepthook\n    from mm_config import main\n"
        "    assert sys.excepthook is before\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_other_errors_keep_their_traceback(tmp_path: Path) -> None:
    done = run(tmp_path, "from mm_config import main\n1 / 0\n")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr
