"""What `mm doctor` asks: small checks, which packages register by entry points.

An entry point of the group `mm.checks` is a tuple of functions from `DoctorOptions` to `Check`s. Each
imports what it looks at, so that one library that can't be imported spoils no other check.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import attrs

from mm_config.doctor.torch_extensions import extension_failure
from mm_config.schema.errors import UserError
from mm_config.schema.installed import registered, registered_names

GROUP = "mm.checks"


class CheckStatus(enum.Enum):
    """What a check found."""

    OK = "ok"
    MISSING = "missing"
    """Something optional is not there; nothing else suffers."""
    WARNING = "warning"
    """It works, or may work, but not as it should."""
    BROKEN = "broken"
    """Something that is needed does not work."""


OK, MISSING, WARNING, BROKEN = CheckStatus


@attrs.frozen
class DoctorOptions:
    """What is asked about."""

    runs_dir: Path = Path("runs")
    """The folder that runs would lie in."""
    device: str = "auto"
    """The device that has to work; `auto` is whichever is there."""


@attrs.frozen
class Check:
    """One thing that was looked at."""

    name: str
    """What was looked at."""
    status: CheckStatus
    """How it is."""
    detail: str = ""
    """The version, the place, or what is wrong."""
    remedy: str = ""
    """What to do about it, where something is to be done."""


Checks = tuple[Callable[[DoctorOptions], Iterable[Check]], ...]


def all_checks(options: DoctorOptions) -> Iterator[Check]:
    """Runs the checks of all installed packages, mm_config's first, as far as torch can be imported."""
    for name in sorted(registered_names(GROUP), key=lambda name: (name != "config", name)):
        try:
            if (entry := registered(GROUP, name)) is not None:
                yield from checks_of(entry, options)
        except UserError as error:
            yield _failed(f"checks of {name}", error)
        except RuntimeError as error:
            failure = extension_failure(error)
            assert failure is not None
            detail = f"{failure.reason}; what needs torch was not tried"
            yield Check("torch", BROKEN, detail, failure.remedy)
            return


def checks_of(entry: EntryPoint, options: DoctorOptions) -> Iterator[Check]:
    """Runs the checks of one package.

    What a check raises is a finding as well: this is for machines on which something is wrong.

    Raises:
        RuntimeError: An extension kept torch from being imported, after which no check can try it again.
    """
    try:
        functions: Checks = entry.load()
    except Exception as error:
        _raise_if_torch_is_lost(error)
        yield _failed(f"checks of {entry.value.partition('.')[0]}", error)
        return
    for function in functions:
        try:
            yield from function(options)
        except Exception as error:
            _raise_if_torch_is_lost(error)
            yield _failed(function.__name__.replace("_", " "), error)


def _raise_if_torch_is_lost(error: Exception) -> None:
    if extension_failure(error) is not None:
        raise error


def _failed(name: str, error: Exception) -> Check:
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    remedy = f"pip install {error.name}" if isinstance(error, ModuleNotFoundError) and error.name else ""
    return Check(name, BROKEN, " ".join(text.split()), remedy)
