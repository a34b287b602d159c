"""What becomes of a key of another tool's files."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """In the order of a report; the values are what it says, the names what `--json` says."""

    CONFLICT = "in conflict"
    """It is said twice, differently, or is not what it says."""
    OPEN = "open: say it before the run"
    """A placeholder stands where a name or a path belongs, or what is needed was not given."""
    MISSPELT = "misspelt"
    """Somebody meant another key."""
    REFUSED = "refused"
    """Our spec can't say it."""
    UNKNOWN = "unknown"
    """The tool has no such key."""
    MAPPED = "mapped"
    """It is a value of our spec, or of the command line."""
    DEFAULT = "missing in the files, so the tool's defaults hold"
    """A key that is missing, where the tool's default is a value of our spec."""
    DERIVED = "derived"
    """It follows from other values, is checked against them, or holds always."""
    DEAD = "dead there"
    """The tool never reads it here."""
    OUTSIDE = "outside the spec"
    """It is about the machine or one request; the experiment does not hold it."""
