"""What can be checked without torch: Python, packages, the runs folder and its index, locations."""

from __future__ import annotations

import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions, version
from typing import TYPE_CHECKING

from mm_config.doctor.checks import BROKEN, MISSING, OK, WARNING, Check, Checks, DoctorOptions
from mm_config.options.locations import FILE_NAME, load_locations, project_file, user_file
from mm_config.rules.wording import counted
from mm_config.runs import removing
from mm_config.runs.index import open_index

if TYPE_CHECKING:
    from packaging.requirements import Requirement

LOW_DISK_BYTES = 2**30
ABSENT = "is not installed"
CONDITIONS = {"torch-npu": "only after CANN: without it, import torch itself fails"}
"""What has to be so before something optional is installed."""


def python(_: DoctorOptions) -> Iterator[Check]:
    """The interpreter."""
    yield Check("Python", OK, f"{platform.python_version()}, {sys.executable}")


def packages(_: DoctorOptions) -> Iterator[Check]:
    """The packages of mm, and whether the versions of what they need fit."""
    for package in _packages():
        wrong = {str(one): found for one in _requirements(package) if (found := _unmet(one))}
        if wrong:
            detail = f"{package.version}, but {', '.join(wrong.values())}"
            yield Check(package.name, BROKEN, detail, f"pip install {shlex.join(wrong)}")
        else:
            yield Check(package.name, OK, package.version)


def extras(_: DoctorOptions) -> Iterator[Check]:
    """What is optional, as the packages' extras declare it."""
    ours = [package.name for package in _packages()]
    for package in _packages():
        always = _requirements(package)
        for extra in package.metadata.get_all("Provides-Extra") or ():
            needed = [one for one in _requirements(package, extra) if one not in always]
            # An extra that hands on another package's is reported with that package.
            if any(one.name in ours for one in needed):
                continue
            names, install = ", ".join(one.name for one in needed), f"{package.name}[{extra}]"
            if wrong := [found for one in needed if (found := _unmet(one))]:
                unfit = ", ".join(found for found in wrong if not found.endswith(ABSENT))
                conditions = [CONDITIONS[one.name] for one in needed if one.name in CONDITIONS]
                remedy = ", ".join((f'pip install "{install}"', *conditions))
                yield Check(names, MISSING, unfit, remedy)
            elif needed:
                yield Check(names, OK, f"{', '.join(version(one.name) for one in needed)} ({install})")


def runs_folder(options: DoctorOptions) -> Iterator[Check]:
    """Whether runs can be written, and how much room there is for them."""
    folder = options.runs_dir.absolute()
    place = next(at for at in (folder, *folder.parents) if at.exists())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        yield Check(
            "runs folder", BROKEN, f"{place} can't be written: {error.strerror}", "give --runs-dir DIR"
        )
    else:
        made = "" if place == folder else ", made by the first run"
        yield Check("runs folder", OK, f"{options.runs_dir} can be written{made}")
    disk = shutil.disk_usage(place)
    room = f"{disk.free / 2**30:.1f} GiB free of {disk.total / 2**30:.1f} GiB"
    if disk.free < LOW_DISK_BYTES:
        yield Check("disk", BROKEN, room, "make room, or give --runs-dir DIR on another disk")
    else:
        yield Check("disk", OK, room)


def index(options: DoctorOptions) -> Iterator[Check]:
    """Whether the index of runs opens."""
    opened = open_index(options.runs_dir)
    runs = len(opened.list())
    url = opened.engine.url
    where = f"in {url.render_as_string(hide_password=True)}" if url.database else "yet"
    yield Check("index", OK, f"{counted(runs, 'run')} {where}")


def leftovers(options: DoctorOptions) -> Iterator[Check]:
    """What killed processes left in the runs folder, and what only a person can tell of."""
    found = removing.leftovers(options.runs_dir)
    over = [one for one in found if one.is_over]
    size = sum(one.size for one in over)
    for one in found:
        if not one.is_over:
            what = f"{one.path}, {one.size / 2**20:.1f} MiB: whether its process has ended can't be told here"
            yield Check("leftover", WARNING, what, "delete it where nothing writes it any more")
    if over:
        what = f"{counted(len(over), 'stage')} of killed processes, {size / 2**20:.1f} MiB"
        yield Check("leftovers", WARNING, what, "mm runs gc")
    elif not found:
        yield Check("leftovers", OK, "none of killed processes")


def locations(_: DoctorOptions) -> Iterator[Check]:
    """The location files that were found, and whether what they name exists."""
    entries = load_locations().entries
    for entry in entries:
        named = f"{entry.name} is {entry.path} by {entry.source}"
        if entry.path.exists():
            yield Check("location", OK, named)
        else:
            yield Check(
                "location", MISSING, f"{named}, which does not exist", "correct the line, or put it there"
            )
    if not entries:
        read = [str(path) for path in (project_file(), user_file()) if path and path.is_file()]
        where = (
            f"none in {' or '.join(read)}"
            if read
            else f"no {FILE_NAME} here, above or in {user_file().parent}"
        )
        yield Check("locations", OK, where)


CHECKS: Checks = (python, packages, extras, runs_folder, index, leftovers, locations)


def _packages() -> list[Distribution]:
    """The distributions that register something with mm, mm-config itself among them."""
    ours = {
        found.name
        for found in distributions()
        if any(entry.group.startswith("mm.") for entry in found.entry_points)
    }
    return [distribution(name) for name in sorted(ours)]


def _requirements(package: Distribution, extra: str = "") -> list[Requirement]:
    """What a package needs on this machine, with an extra or without."""
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in package.requires or ()]
    return [one for one in needed if one.marker is None or one.marker.evaluate({"extra": extra})]


def _unmet(needed: Requirement) -> str | None:
    """What is wrong with what is installed, if something is."""
    try:
        found = version(needed.name)
    except PackageNotFoundError:
        return f"{needed.name} {ABSENT}"
    if needed.specifier.contains(found, prereleases=True):
        return None
    return f"{needed.name} is {found}, not {needed.specifier}"
