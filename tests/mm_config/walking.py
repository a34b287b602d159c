"""An installed package whose runs can be made to drift; no tensor library is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import attrs
import pytest

from mm_config import spec_hash
from mm_config.cli.app import app
from mm_config.options.run_options import RunOptions
from mm_config.running import runners

WALKING = '''
"""A package that trains nothing: its loss follows from the step, and from where WALK_DRIFT says so."""
import hashlib, json, os
from mm_config.options.run_options import RunOutcome, StoppedEarly
from mm_config.runs.folder import open_run, recorded
from mm_config.stored.json_files import write_json
from mm_config.schema.decorator import spec
from mm_config.schema.fields import LOCATION, field
from mm_config.schema.root import RootSpec

@spec("walk")
class WalkSpec(RootSpec):
    """Walks."""

    name: str = field(default="walk", role=LOCATION)
    """Label of the run."""
    steps: int = field(default=4, ge=0)
    """Steps."""

def run(spec, options):
    drifts_at = int(os.environ.get("WALK_DRIFT", "0"))
    with recorded(open_run(spec, options)) as opened:
        print("walking", flush=True)
        last = min(spec.steps, options.stop_after or spec.steps)
        for step in range(1, last + 1):
            opened.log({"step": step, "loss": 1 / step + (step == drifts_at) / 4, "seconds": os.getpid()})
        if last:
            folder = opened.checkpoints_dir / f"step-{last:08d}"
            folder.mkdir(parents=True)
            (folder / "weights").write_text(f"{last} of {spec.steps}")
            digest = hashlib.sha256((folder / "weights").read_bytes()).hexdigest()
            write_json(folder / "manifest.json", {"v": 1, "files": {"weights": {"sha256": digest}}})
        if last < spec.steps:
            raise StoppedEarly(opened.path, last, spec.steps)
        return RunOutcome(opened.path, opened.finish({"score": {"luck": 0.5}} if last else {}))
'''


@attrs.frozen
class Outcome:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@attrs.frozen
class Place:
    """A folder of runs, and the command line on it."""

    path: Path
    site: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def walk(self, steps: int = 4) -> tuple[Path, str]:
        """A stored run: its folder and the first digits of its hash."""
        spec = import_module("walking").WalkSpec(steps=steps)
        folder = runners.run(spec, RunOptions(runs_dir=self.path / "runs")).run_dir
        self.capsys.readouterr()
        return folder, spec_hash(spec)[:8]

    def walk_in_a_process(self) -> tuple[Path, str]:
        """The same by the experiment's own command line."""
        done = self.process("walk.py")
        assert done.returncode == 0, done.stderr
        folder = Path(done.stdout.splitlines()[-1]).parent
        return folder, folder.name.split("-")[1][:8]

    def reproduce(self, *argv: str, drift: int = 0) -> Outcome:
        """`mm reproduce` in this process."""
        self.monkeypatch.setenv("WALK_DRIFT", str(drift))
        status = app(["reproduce", *argv])
        out, err = self.capsys.readouterr()
        return Outcome(status, out, err)

    def process(self, *argv: str, **environment: str) -> Outcome:
        """Python in a process of its own."""
        done = subprocess.run(
            [sys.executable, *argv],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": str(self.site), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)


def content_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
