"""What becomes of a key of another tool's files."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """What becomes of a key; the values are what reports and pages say, the names what `--json` says."""

    MAPPED = "mapped"
    """It is a value of our spec, or of the command line."""
    DEFAULT = "taken from the tool's defaults"
    """A key that is missing, where the tool's default is a value of our spec."""
    DERIVED = "derived"
    """It follows from other values, is checked against them, or holds always."""
    DEAD = "dead there"
    """The tool never reads it here."""
    OUTSIDE = "outside the spec"
    """It is about the machine or one request; the experiment does not hold it."""
    MISSPELT = "misspelt"
    """Somebody meant another key."""
    CONFLICT = "in conflict"
    """It is said twice, differently, or is not what it says."""
    UNKNOWN = "unknown"
    """The tool has no such key."""
    REFUSED = "refused"
    """Our spec can't say it."""
