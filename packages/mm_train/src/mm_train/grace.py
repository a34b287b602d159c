"""How long a stop takes, and how long launchers wait for it."""

from __future__ import annotations

GRACE_SECONDS = 30
"""From SIGTERM to SIGKILL where nobody says otherwise: torchrun's --shutdown-timeout, Slurm's KillWait."""


class Grace:
    """Says once that ranks which are asked to stop need longer than launchers wait."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._told = False

    def step(self, seconds: float) -> None:
        """Notes how long a step took, with what is looked at after it."""
        self._longest = max(self._longest, seconds)

    def late(self, writing: float) -> str:
        """What is to be said of the seconds that a checkpoint takes after the longest step, or nothing."""
        seconds = self._longest + writing
        if self._told or seconds < GRACE_SECONDS:
            return ""
        self._told = True
        return (
            f"a stop takes up to {seconds:.0f} s: a step, what is looked at after it, a checkpoint. torchrun "
            f"and Slurm end ranks {GRACE_SECONDS} s after SIGTERM: give torchrun --shutdown-timeout "
            f"{2 * seconds:.0f} and sbatch --signal=B:USR1@{2 * seconds:.0f}, or the state of a stop is lost"
        )
