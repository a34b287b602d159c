"""What stands beside a spec and never in it: where runs live, what to resume, how locations resolve."""

from __future__ import annotations

from pathlib import Path

import attrs

from mm_config.locations import Locations


@attrs.frozen
class RunOptions:
    """How a finished spec is carried out on this machine; changes neither hash."""

    runs_dir: Path = Path("runs")
    """Folder of all run folders and of their index."""
    resume: str | None = None
    """A run folder, a run id or a hash prefix to continue, or `latest`; None starts anew."""
    if_needed: bool = False
    """Whether a finished run of an equal spec is reported instead of run again."""
    locations: Locations = Locations()
    """Paths of weights and data by logical name."""
    argv: tuple[str, ...] = ()
    """The command line, for the provenance."""

    @property
    def cache_dir(self) -> Path:
        """Folder of what can be made again: rendered data, latents, features."""
        return self.runs_dir / ".cache"


@attrs.frozen
class RunOutcome:
    """What a run left behind."""

    run_dir: Path
    """The run folder."""
    result_path: Path
    """Its result.json."""
    reused: bool = False
    """Whether an earlier run was reported instead of running again."""
