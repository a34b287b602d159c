"""The verbs of `mm`, as packages register them by entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any

from mm_config.cli.verb import Verb
from mm_config.schema.errors import UserError
from mm_config.schema.suggestions import did_you_mean

GROUP = "mm.verbs"


def verbs() -> EntryPoints:
    """The registered verbs; none is imported."""
    return entry_points(group=GROUP)


def verb_named(name: str) -> EntryPoint:
    """A registered verb.

    Raises:
        UserError: There is none of this name; the nearest and all names are told.
    """
    known = verbs()
    if name not in known.names:
        names = ", ".join(sorted(known.names))
        raise UserError(f"{name!r} is no verb of mm{did_you_mean(name, known.names)}; verbs: {names}")
    return known[name]


def load_verb(entry: EntryPoint) -> Verb:
    """Imports a verb.

    Raises:
        UserError: A library that it needs is not installed, or the entry point names something else.
    """
    try:
        loaded: Any = entry.load()
    except ModuleNotFoundError as error:
        raise UserError(f"mm {entry.name} can't be loaded: {error}; install what it needs") from error
    except AttributeError as error:
        raise UserError(f"mm {entry.name} can't be loaded: {error}; install its package anew") from error
    if not isinstance(loaded, Verb):
        raise UserError(f"mm {entry.name} can't be loaded: {entry.value} is no Verb")
    return loaded
