"""The location table: logical names of weights and data to paths on this machine.

A name given by `--location NAME=PATH` beats the project's `locations.yaml`, searched from the current
folder upward, which beats the user's `~/.config/mm/locations.yaml`. Paths in a file are relative to
that file. `~` is expanded, environment variables are not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from mm_config.durable.reading import outside, read_bytes
from mm_config.schema.errors import Problem, UserError, concerning, gathering
from mm_config.schema.evolve import leaves
from mm_config.schema.root import RootSpec
from mm_config.schema.suggestions import did_you_mean
from mm_config.schema.types import is_dict, typed

FILE_NAME = "locations.yaml"
FLAG = "--location"
_MAX_BYTES = 2**20


@attrs.frozen(field_transformer=typed)
class Location:
    """One entry of the table."""

    name: str
    """Logical name, such as `Wan-AI/Wan2.2-T2V-A14B-Diffusers`."""
    path: Path
    """Where it lies."""
    source: str
    """What defines it: the flag, or the path of a file."""


@attrs.frozen(field_transformer=typed)
class Locations:
    """The merged table; a name appears once."""

    entries: tuple[Location, ...] = ()
    """Each logical name and where it lies."""

    def resolve(self, name: str, subfolder: str = "") -> Path:
        """The existing path of a logical name, or what lies in a subfolder of it, which may be missing.

        Raises:
            UserError: The name is not defined (naming the three ways to define it), its path does
                not exist, or the subfolder leads out of it.
        """
        if subfolder and (problem := outside(subfolder, Path(), follow=False)):
            raise UserError(f"the subfolder {subfolder!r} of {name}: {problem}")
        for entry in self.entries:
            if entry.name == name:
                if not entry.path.exists():
                    raise UserError(
                        f"location {name!r} is {entry.path} by {entry.source}, which does not exist"
                    )
                return entry.path / subfolder
        meant = did_you_mean(name, [entry.name for entry in self.entries])
        raise UserError(
            f"no location is named {name!r}{meant}; define it by `--location {name}=PATH`, by a line "
            f"`{name}: PATH` in the project's {FILE_NAME}, or by the same line in {user_file()}"
        )


def load_locations(flags: Iterable[str] = (), start: Path | None = None) -> Locations:
    """Merges the three sources into one table.

    Args:
        flags: The values of `--location`, each `NAME=PATH`.
        start: Folder from which the project's file is searched upward; the current one by default.

    Raises:
        UserError: A flag or a file is malformed; all problems are reported together.
    """
    problems, found = list[Problem](), list[Location]()
    for path in (user_file(), project_file(start)):
        with gathering(problems):
            found += _read_file(path) if path is not None and os.path.lexists(path) else []
    found += _read_flags(flags, problems)
    if problems:
        raise UserError(problems)
    return Locations(tuple({entry.name: entry for entry in found}.values()))


def unused_names(locations: Locations, spec: RootSpec) -> Iterator[Problem]:
    """Names given by `--location` that stand nowhere in a spec: a misspelt one is not ignored in silence."""
    words = {leaf.value for leaf in leaves(spec) if isinstance(leaf.value, str)}
    for entry in locations.entries:
        if entry.source == FLAG and entry.name not in words:
            meant = did_you_mean(entry.name, words)
            yield Problem(FLAG, f"the spec names nothing {entry.name!r}{meant}")


def user_file() -> Path:
    """The user's own table, which need not exist."""
    return Path.home() / ".config" / "mm" / FILE_NAME


def project_file(start: Path | None = None) -> Path | None:
    """The nearest `locations.yaml` from a folder upward."""
    folder = (start or Path.cwd()).resolve()
    return next((at / FILE_NAME for at in (folder, *folder.parents) if os.path.lexists(at / FILE_NAME)), None)


def _read_flags(flags: Iterable[str], problems: list[Problem]) -> list[Location]:
    found: dict[str, Location] = {}
    for flag in flags:
        name, equals, path = flag.partition("=")
        if not (name and equals and path):
            problems.append(Problem(FLAG, f"expected NAME=PATH, got {flag!r}"))
        elif name in found:
            problems.append(Problem(FLAG, f"{name!r} is given twice"))
        else:
            found[name] = Location(name, Path(path).expanduser().absolute(), FLAG)
    return list(found.values())


def _read_file(path: Path) -> list[Location]:
    from mm_config.stored.parsing import checked, parse_yaml

    with concerning(str(path)):
        try:
            content, problems = checked(parse_yaml(read_bytes(path, _MAX_BYTES).decode()))
        except OSError as error:
            raise UserError(f"can't be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"can't be read: {error}") from error
        if content is not None and not is_dict(content):
            message = f"expected lines `NAME: PATH`, got a {type(content).__name__}"
            raise UserError([*problems, Problem("", message)])
        found: list[Location] = []
        for name, value in (content or {}).items():
            if name and value and isinstance(value, str):
                found.append(Location(name, path.parent / Path(value).expanduser(), str(path)))
            else:
                problems.append(Problem("", f"expected `NAME: PATH`, got `{name}: {value}`"))
        if problems:
            raise UserError(problems)
        return found
