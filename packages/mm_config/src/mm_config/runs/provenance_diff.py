"""What differs between where a run came from and where it would come from now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from mm_config.runs.provenance import (
    NO_VARIABLES,
    code_repositories,
    patch_file,
    provenance,
    read_provenance,
    uncommitted_patch,
)
from mm_config.runs.record import PROVENANCE_FILE
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.types import is_dict, is_list

_ALWAYS_RECORDED = (
    "host",
    "platform",
    "python",
    "cpu_count",
    "threads",
    "intra_op_threads",
    "devices",
    "ops",
)
_OTHER_IN_EACH_RUN = ("TORCHELASTIC_RUN_ID",)
_SHOWN_DIGITS = 12
_SHOWN_FILES = 3


@attrs.frozen
class Origin:
    """A run's provenance, with digests of the patches that belong to it."""

    content: Mapping[str, Any]
    """What `provenance` gives."""
    patches: Mapping[str, str]
    """sha256 of each repository's uncommitted changes, by the repository's root; clean ones are left out."""


ORDER = "order of samples"
"""How the name of a change ends that is in no `made_of`."""


@attrs.frozen
class OriginChange:
    """One thing that is not as it was."""

    name: str
    """What: `python`, `package torch`, `git main, commit`."""
    old: str
    """As it was recorded."""
    new: str
    """As it is now."""

    @property
    def is_order(self) -> bool:
        """Whether the content is the same, in another order of samples."""
        return self.name.endswith(ORDER)

    def __str__(self) -> str:
        return f"{self.name}: {self.old} -> {self.new}"


def origin_here(argv: Sequence[str], exported: Mapping[str, str] = NO_VARIABLES) -> Origin:
    """Where a run of this process would come from; devices and ops are known once it has started.

    Args:
        argv: The command line.
        exported: The environment variables that the run's spec sets.
    """
    content = provenance(argv, exported=exported)
    del content["devices"], content["ops"]
    patches = {str(root): patch for root in code_repositories() if (patch := uncommitted_patch(root))}
    return Origin(content, {root: _digest(patch) for root, patch in patches.items()})


def stored_origins(run_dir: Path) -> dict[str, Origin]:
    """Where the processes of a stored run came from, by the name of the file: the first, then each resume.

    Raises:
        UserError: The provenance is missing or is none.
    """
    resumes = sorted(run_dir.glob("provenance-[0-9]*.json"), key=lambda file: (len(file.name), file.name))
    return {file.name: _stored(file) for file in (run_dir / PROVENANCE_FILE, *resumes)}


def changes(then: Origin, now: Origin) -> tuple[OriginChange, ...]:
    """One change for each fact that differs: machine, Python, packages, launcher, commits, uncommitted code.

    What an older run could not record yet is told as `not recorded`; what is not known now is left out.
    """
    old, new = dict(_facts(then)), dict(_facts(now))
    unknown = set(_ALWAYS_RECORDED) - set(new)
    found: list[OriginChange] = []
    for name in {**old, **new}:
        absent = "not recorded" if name in _ALWAYS_RECORDED else "none"
        was, is_now = old.get(name, absent), new.get(name, absent)
        if was != is_now and name not in unknown:
            found.append(OriginChange(name, was, is_now))
    return (*found, *_untracked_changes(then, now))


def _stored(file: Path) -> Origin:
    content = read_provenance(file)
    try:
        roots = [state["root"] for state in content["git"]]
        patches = {root: patch_file(file, Path(root)) for root in roots}
        digests = {root: _digest(patch.read_bytes()) for root, patch in patches.items() if patch.is_file()}
        origin = Origin(content, digests)
        changes(origin, origin)
    except (AttributeError, LookupError, TypeError) as error:
        raise UserError(Problem(str(file), f"is no provenance of a run: {error!r}")) from error
    return origin


def _facts(origin: Origin) -> Iterator[tuple[str, str]]:
    content = origin.content
    for name in _ALWAYS_RECORDED:
        if name in content:
            yield name, _joined(content[name])
    for name, value in content["launcher"].items():
        if name not in _OTHER_IN_EACH_RUN:
            yield name, value
    for name, value in content.get("environment", {}).get("found", {}).items():
        yield f"variable {name}", value
    for name, version in content["packages"].items():
        yield f"package {name}", version
    for state in content["git"]:
        # By its folder's name: a checkout that was moved is still the same repository.
        name = f"git {Path(state['root']).name}"
        patch = origin.patches.get(state["root"])
        yield f"{name}, commit", state["commit"] or "none"
        yield f"{name}, uncommitted changes", f"patch {patch[:_SHOWN_DIGITS]}" if patch else "none"


def _joined(value: Any) -> str:
    if is_dict(value):
        return ", ".join(f"{name} {what}" for name, what in value.items()) or "none"
    return ", ".join(map(str, value)) or "none" if is_list(value) else str(value)


def _untracked_changes(then: Origin, now: Origin) -> Iterator[OriginChange]:
    """The untracked files that only one of them has: a working tree may hold many that both have."""
    old, new = _untracked(then), _untracked(now)
    for name in {**old, **new}:
        was, is_now = old.get(name, set()), new.get(name, set())
        if was != is_now:
            yield OriginChange(f"{name}, untracked files", _some(was - is_now), _some(is_now - was))


def _untracked(origin: Origin) -> dict[str, set[str]]:
    return {f"git {Path(state['root']).name}": set(state["untracked"]) for state in origin.content["git"]}


def _some(files: set[str]) -> str:
    shown = sorted(files)[:_SHOWN_FILES]
    more = f" and {len(files) - len(shown)} more" if len(files) > len(shown) else ""
    return f"{', '.join(shown)}{more}" or "none"


def _digest(patch: bytes) -> str:
    return hashlib.sha256(patch).hexdigest()
