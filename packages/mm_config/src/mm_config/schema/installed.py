"""What installed packages register by entry points: one distribution has a name in a group."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any

from mm_config.schema.errors import UserError


def registered(group: str, name: str) -> EntryPoint | None:
    """What is registered by a name; None where nothing is. Nothing is imported.

    Raises:
        UserError: Several distributions register it: which one answered would be chance.
    """
    found = [entry for entry in _group(group) if entry.name == name]
    if len(found) > 1:
        owners = sorted(entry.dist.name if entry.dist else entry.value for entry in found)
        raise UserError(
            f"{name!r} of {group} is registered by {' and '.join(owners)}; uninstall all of them but one"
        )
    return next(iter(found), None)


def all_registered(group: str) -> list[EntryPoint]:
    """All that is registered in a group, by name.

    Raises:
        UserError: Several distributions register one name.
    """
    entries = (registered(group, name) for name in registered_names(group))
    return [entry for entry in entries if entry is not None]


def registered_names(group: str) -> list[str]:
    """The names that something is registered by, in order; nothing is imported."""
    return sorted({entry.name for entry in _group(group)})


def _group(name: str) -> EntryPoints:
    return _selected(name, tuple(sys.path))


@cache
def _selected(group: str, path: tuple[str, ...]) -> EntryPoints:
    """A group's entry points: a page of help asks a hundred times."""
    return _all(path).select(group=group)


@cache
def _all(path: tuple[str, ...]) -> Any:
    """All entry points, read once for a search path: of EntryPoints or, before Python 3.12, by group."""
    return entry_points()


def loaded(entry: EntryPoint, what: str) -> Any:
    """Imports what an entry point names.

    Args:
        entry: The entry point.
        what: What it is, for the message.

    Raises:
        UserError: A library that it needs is not installed, or its package has no such thing any more.
    """
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        raise UserError(f"{what} can't be loaded: {error}; install what it needs") from error
    except AttributeError as error:
        raise UserError(f"{what} can't be loaded: {error}; install its package anew") from error
