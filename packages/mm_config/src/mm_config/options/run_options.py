"""What stands beside a spec and never in it: where runs live, what to resume, how locations resolve."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config.options.locations import Locations, load_locations
from mm_config.schema.errors import Problem
from mm_config.schema.types import typed
from mm_config.specs.requests import GenerationRequest

ACCEPT = "--accept-content"
"""The flag of `accept_content`."""
REPRODUCTIONS = "reproductions"
"""Folder below the runs folder that holds runs which only repeat others."""


def _path(value: Any) -> Path:
    return Path(value) if isinstance(value, str) else value


def _text(value: Any) -> str | None:
    return os.fspath(value) if isinstance(value, Path) else value


@attrs.frozen(field_transformer=typed)
class Threads:
    """On how many threads a process computes: sums are split among them, so the last bits depend on it."""

    openmp: int = attrs.field(validator=attrs.validators.ge(1))
    """Of an OpenMP program that sets none itself."""
    torch: int | None
    """Of torch's own loops; None where torch is not loaded."""


@attrs.frozen(field_transformer=typed)
class RunOptions:
    """How a finished spec is carried out on this machine; changes neither hash.

    Raises:
        TypeError: A value is of another type; paths may be given as text, and the run to resume as a path.
        ValueError: `stop_after` is below 1.
        UserError: A `locations.yaml` that is read is malformed.
    """

    runs_dir: Path = attrs.field(default=Path("runs"), converter=_path)
    """Folder of all run folders and of their index."""
    resume: str | None = attrs.field(default=None, converter=_text)
    """A run folder, a run id or a hash prefix to continue, or `latest` of the label; `auto` continues the
    newest run of the very spec that has not finished, and makes one where there is none; None starts anew."""
    restart: bool = False
    """Whether a new run is made where `resume` is `latest` and finds none, or names a run that has lost its
    checkpoints. Without `resume` one is made anyway."""
    if_needed: bool = False
    """Whether a finished run of an equal spec is reported instead of run again."""
    locations: Locations = attrs.field(factory=load_locations)
    """Paths of weights and data by logical name; without it those of `locations.yaml`, the project's and the
    user's, as on the command line. `mm_config.options.load_locations(["NAME=PATH"])` adds some."""
    stop_after: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.ge(1))
    )
    """Optimizer step after which a training saves its state and leaves by `StoppedEarly`; the schedule stays
    that of the whole run. None goes to the end."""
    requests: tuple[GenerationRequest, ...] | None = None
    """What a generation makes in place of the videos that its spec asks for; None makes those. Stored beside
    the spec."""
    repeats: Path | None = attrs.field(default=None, converter=_path)
    """Folder of the run that is repeated: weights of trainings are those of the very runs that it took. The
    new folder then lies in `runs_dir/reproductions`, with an index of its own: whoever looks up the spec's
    hash, or resumes the latest run, finds the earlier one."""
    accept_content: bool = False
    """Whether a name of data or weights may mean another content than it did before."""
    take_over: bool = False
    """Whether a person says that the process of another machine which has the run to resume has ended. One
    that lives, as far as this machine's kernel can tell, keeps its run all the same."""
    threads: Threads | None = None
    """Threads to compute on; None leaves them as the process has them."""
    argv: tuple[str, ...] = ()
    """The command line, for the provenance; empty where Python asks."""

    def name_of(self, option: str) -> str:
        """An option as whoever gave it wrote it: `--resume` on a command line, `options.resume` in Python."""
        return f"--{option.replace('_', '-')}" if self.argv else f"options.{option}"

    def unheard(self, options: Mapping[str, str]) -> Iterator[Problem]:
        """A problem for each of some options, given with why it has no effect, that says something."""
        fields = attrs.fields_dict(RunOptions)
        for option, why in options.items():
            if getattr(self, option) != fields[option].default:
                yield Problem(self.name_of(option), why)

    @property
    def new_runs_dir(self) -> Path:
        """Folder in which a new run's folder is made; everything else is looked up in `runs_dir`."""
        return self.runs_dir / REPRODUCTIONS if self.repeats else self.runs_dir

    @property
    def cache_dir(self) -> Path:
        """Folder of what can be made again: rendered data, latents, features."""
        return self.runs_dir / ".cache"

    @property
    def contents_dir(self) -> Path:
        """Folder of the parts of content by its digest, which tell what later content differs in."""
        return self.cache_dir / "contents"


@attrs.frozen
class RunOutcome:
    """What a run left behind."""

    run_dir: Path
    """The run folder."""
    result_path: Path
    """Its result.json."""
    reused: bool = False
    """Whether an earlier run was reported instead of running again."""


class StoppedEarly(Exception):
    """A run has stopped where `RunOptions.stop_after` says, its state saved; it can be resumed."""

    def __init__(self, run_dir: Path, step: int, steps: int) -> None:
        self.run_dir = run_dir
        super().__init__(f"stopped after step {step} of {steps}, as asked; it can be resumed")
