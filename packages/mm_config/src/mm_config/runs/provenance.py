"""What a run depends on beside its spec: code, packages, machine, command line."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mm_config.durable.writing import write_bytes
from mm_config.npu.variables import RECORDED
from mm_config.options.run_options import Threads
from mm_config.stored.json_files import read_json, write_json

LAUNCH = "TORCHELASTIC_RUN_ID"
"""How torchrun calls what it has launched, `none` where nobody has named it."""
LAUNCHER_VARIABLES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", LAUNCH)
"""What torchrun says of the job; beside it only an NPU's variables are stored, since more holds secrets."""

_SHAPE = {
    "git": [{"root": str, "commit": str | None, "untracked": [str]}],
    "launcher": {"": str},
    "environment": {"exported": {"": str}, "found": {"": str}},
    "ops": {"": str},
    "packages": {"": str},
    "threads": int,
    "intra_op_threads": int | None,
}
"""What is relied on in a provenance."""

NO_OPS: Mapping[str, str] = MappingProxyType({})
"""What a run without networks calls."""
NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
"""What a spec without variables of its own exports."""


def provenance(
    argv: Sequence[str],
    devices: Iterable[str] = (),
    ops: Mapping[str, str] = NO_OPS,
    exported: Mapping[str, str] = NO_VARIABLES,
) -> dict[str, Any]:
    """Where a run comes from, as a JSON object.

    Args:
        argv: The command line.
        devices: The accelerators' names; the caller knows them, this package imports no torch.
        ops: The form of each operation that the networks call, by the operation's name.
        exported: The environment variables that the run's spec sets.
    """
    found = {name: os.environ[name] for name in RECORDED if name in os.environ and name not in exported}
    return {
        "started_at": utc_now(),
        "argv": list(argv),
        "directory": str(Path.cwd()),
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        **_thread_counts(),
        "devices": list(devices),
        "ops": dict(ops),
        "launcher": {name: os.environ[name] for name in LAUNCHER_VARIABLES if name in os.environ},
        "environment": {"exported": dict(exported), "found": found},
        "python": platform.python_version(),
        "packages": _package_versions(),
        "git": [_git_state(root) for root in code_repositories()],
    }


def read_provenance(file: Path) -> dict[str, Any]:
    """A stored provenance. Raises UserError where it can't be read, or holds something else."""
    return read_json(file, _SHAPE)


def write_provenance(file: Path, content: dict[str, Any]) -> None:
    """Writes a provenance, and uncommitted code beside it. Raises OSError where that fails."""
    write_json(file, content)
    for root in code_repositories():
        if patch := uncommitted_patch(root):
            write_bytes(patch_file(file, root), patch)


def code_repositories() -> tuple[Path, ...]:
    """Git repositories that code may come from: the current folder's and this package's, once each."""
    folders = (Path.cwd(), Path(__file__).resolve().parent)
    found = (_git(folder, "rev-parse", "--show-toplevel") for folder in folders)
    return tuple(dict.fromkeys(Path(os.fsdecode(root).strip()) for root in found if root))


def uncommitted_patch(root: Path) -> bytes:
    """The difference of a repository's tracked files from its last commit, as `git apply` reads it."""
    return _git(root, "diff", "HEAD", "--binary") or b""


def patch_file(provenance_file: Path, root: Path) -> Path:
    """Where a repository's uncommitted changes lie beside a stored provenance."""
    return provenance_file.with_name(f"{provenance_file.stem}-{root.name}.patch")


def recorded_threads(content: Mapping[str, Any]) -> Threads:
    """The threads that a stored provenance tells of. Raises LookupError where it tells of none."""
    return Threads(content["threads"], content.get("intra_op_threads"))


def _thread_counts() -> dict[str, int]:
    """The threads of this process, and those of torch's own loops where torch is loaded."""
    torch: Any = sys.modules.get("torch")
    return {"threads": _thread_count()} | ({"intra_op_threads": torch.get_num_threads()} if torch else {})


def _thread_count() -> int:
    """Threads of an OpenMP program that sets none: OMP_NUM_THREADS, else the CPUs this process may use."""
    # A list gives the counts of nested levels; only the first is that of a program's own loops.
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def utc_now() -> str:
    """The time in ISO 8601 with microseconds, so that its order as text is its order in time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@cache
def _package_versions() -> dict[str, str]:
    found = ((str(package.metadata["Name"]), package.version) for package in distributions())
    return dict(sorted(found, key=lambda named: named[0].lower()))


def _git_state(root: Path) -> dict[str, Any]:
    commit = _git(root, "rev-parse", "HEAD")
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "-z") or b""
    return {
        "root": str(root),
        "commit": commit.decode("ascii").strip() if commit else None,
        "dirty": bool(uncommitted_patch(root)),
        "untracked": [os.fsdecode(name) for name in untracked.split(b"\0") if name],
    }


def _git(folder: Path, *arguments: str) -> bytes | None:
    """The output of a git command; None where there is no git, no repository or no commit."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
