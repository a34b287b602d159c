"""`main(SPEC)` in a notebook: the code of cells lies in no file, and the command line is the kernel's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.mm_config.test_cli_main import place

__all__ = ["place"]

KERNEL = """
import sys, types

# As IPython does it: cells run in a module of this name that has no file.
notebook = types.ModuleType("__main__")
sys.modules["__main__"] = notebook
sys.argv = ["ipykernel_launcher.py", "-f", "kernel-1.json", "--spec.upto", "9"]
hook = sys.excepthook
for cell in CELLS:
    try:
        exec(compile(cell, "<ipython-input>", "exec"), vars(notebook))
    except Exception as error:
        print(type(error).__name__, str(error).splitlines())
assert sys.excepthook is hook
"""
CELLS = [
    "from counting import CountingSpec\nfrom mm_config import RunOutcome, main, replace\n",
    "outcome = main(CountingSpec(name='cell', upto=4))\nassert isinstance(outcome, RunOutcome)\n",
    "print(outcome.result_path)\n",
    "main(CountingSpec(upto=13))\n",
    "main(replace(CountingSpec(), 'upto', 0))\n",
    "main(3)\n",
]


def test_a_spec_runs_as_it_is_and_mistakes_are_raised(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"CELLS = {CELLS!r}\n{KERNEL}"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = [line for line in done.stdout.splitlines() if line != "counting"]
    assert json.loads((place / said[0]).read_text()) == {"counted": [1, 2, 3, 4]}
    assert Path(said[0]).parent.parent == Path("runs/cell")
    assert said[1:] == [
        "UserError ['spec.upto: 13 brings bad luck', 'so nothing is counted']",
        "SpecError ['spec.upto: must be >= 1, got 0']",
        "TypeError ['spec: expected RootSpec, got int']",
    ]
