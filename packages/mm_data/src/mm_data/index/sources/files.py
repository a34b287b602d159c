"""Files of a source by name: in folders that may be read, or in a bucket."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

import attrs

from mm_config.durable import open_regular
from mm_config.options import Locations
from mm_config.schema import Problem, UserError
from mm_data import remote

NO_FILE = Path()
"""The path of what lies over the network."""


@attrs.frozen
class Located:
    """Where a named file lies: here, or over the network."""

    path: Path
    """Resolved; `NO_FILE` where there is a url."""
    url: str | None = None
    """Over the network."""


class Files(Protocol):
    """What sources read from."""

    @property
    def root(self) -> str:
        """The folder that names start from, as messages have it."""
        ...

    def names(self) -> Iterator[str]:
        """All files, by name, without hidden ones. Raises UserError where a link leads out."""
        ...

    def located(self, name: str) -> Located:
        """Where a file lies, which may be missing. Raises ValueError that says why the name is refused."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A file's bytes. Raises ValueError where the name is refused, OSError where it can't be read."""
        ...

    def below(self, folder: str) -> Files:
        """The files of another folder. Raises ValueError where that is refused."""
        ...


@attrs.frozen
class LocalFiles:
    """Files of this machine: inside the root, or inside another folder that a person allowed."""

    folder: Path
    """The root, resolved."""
    roots: tuple[Path, ...] = ()
    """Further allowed folders, resolved."""
    remote: tuple[str, ...] = ()
    """Where urls may lead, as `mm_data.remote` takes it."""
    _folders: dict[str, Path] = attrs.field(factory=dict[str, Path], init=False, eq=False, repr=False)
    """Resolved folders: those of a million clips are few."""

    @property
    def root(self) -> str:
        """The folder that names start from, as messages have it."""
        return str(self.folder)

    def names(self) -> Iterator[str]:
        """All files, by name; a folder that a link leads to is walked where it is allowed, once."""
        problems: list[Problem] = []
        yield from self._below("", {self.folder}, problems)
        if problems:
            raise UserError(problems)

    def _below(self, folder: str, seen: set[Path], problems: list[Problem]) -> Iterator[str]:
        try:
            entries = sorted(os.scandir(self.folder / folder), key=lambda entry: entry.name)
        except OSError as error:
            problems.append(Problem(str(self.folder / folder), f"can't be read: {error.strerror}"))
            return
        for entry in entries:
            name = f"{folder}{entry.name}"
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                yield name
                continue
            target = (self.folder / name).resolve()
            if not self._allows(target):
                problems.append(Problem(entry.path, self._outside("a link that leads", target)))
            elif target not in seen:
                seen.add(target)
                yield from self._below(f"{name}/", seen, problems)

    def located(self, name: str) -> Located:
        """Where a file lies. Backslashes are taken for slashes where no file has them in its name."""
        if "://" in name:
            return Located(NO_FILE, remote.allowed(name, self.remote))
        if "\\" in name and not os.path.lexists(self.folder / name):
            name = name.replace("\\", "/")
        folder, _, leaf = name.rpartition("/")
        if leaf in ("", ".") or "\0" in name:
            raise ValueError("not a path")
        if ".." in name.split("/"):
            raise ValueError("`..` is not allowed in a path")
        if re.match(r"[A-Za-z]:/", name):
            raise ValueError("a path of a Windows drive, which is none here")
        return Located(self._inside(folder or name[: len(name) - len(leaf)], leaf))

    def _inside(self, folder: str, leaf: str) -> Path:
        try:
            if folder not in self._folders:
                self._folders[folder] = (self.folder / folder).resolve()
            found = self._folders[folder] / leaf
            try:
                mode = os.lstat(found).st_mode
            except FileNotFoundError:
                mode = stat.S_IFREG
            if stat.S_ISLNK(mode):
                found = found.resolve()
                mode = found.stat().st_mode if found.exists() else stat.S_IFREG
        except OSError as error:
            raise ValueError(f"not a path: {error.strerror}") from error
        except RuntimeError as error:  # What pathlib raises before Python 3.13.
            raise ValueError("a link that leads to itself") from error
        if not self._allows(found):
            absolute = folder.startswith("/")
            raise ValueError(self._outside("an absolute path" if absolute else "a link that leads", found))
        if not stat.S_ISREG(mode):
            raise ValueError("not a regular file")
        return found

    def _allows(self, path: Path) -> bool:
        # As text, since there may be a million paths.
        roots = (str(root).rstrip("/") for root in (self.folder, *self.roots))
        return any(f"{path}/".startswith(f"{root}/") for root in roots)

    def _outside(self, what: str, target: Path) -> str:
        allow = f"`--location NAME={target.parent}` or a line of locations.yaml allows a folder"
        return f"{what} out of {self.folder}; {allow}"

    def open(self, name: str) -> BinaryIO:
        """A regular file's bytes, or those of an object that may be read."""
        found = self.located(name)
        return open_regular(found.path) if found.url is None else remote.open_remote(found.url, self.remote)

    def below(self, folder: str) -> Files:
        """The files of another folder: below this one, or an allowed one."""
        if "://" in folder:
            return RemoteFiles(remote.allowed(folder, self.remote), self.remote)
        path = PurePosixPath(folder.replace("\\", "/"))
        if ".." in path.parts:
            raise ValueError("`..` is not allowed in a path")
        target = (self.folder / path).resolve()
        if not self._allows(target):
            raise ValueError(self._outside("a folder", target / "x"))
        return LocalFiles(target, (self.folder, *self.roots), self.remote)


@attrs.frozen
class RemoteFiles:
    """Objects below a url."""

    url: str
    """The folder that names start from."""
    remote: tuple[str, ...]
    """Where urls may lead."""

    @property
    def root(self) -> str:
        """The folder that names start from, as messages have it."""
        return self.url

    def names(self) -> Iterator[str]:
        """All objects, by name."""
        for name in remote.states_below(self.url, self.remote):
            if not any(part.startswith(".") for part in name.split("/")):
                yield name

    def located(self, name: str) -> Located:
        """Where an object lies: names are relative to the folder, or urls."""
        if "://" in name:
            return Located(NO_FILE, remote.allowed(name, self.remote))
        path = PurePosixPath(name.replace("\\", "/"))
        if not name or "\0" in name:
            raise ValueError("not a path")
        if ".." in path.parts or path.is_absolute():
            raise ValueError(f"leads out of {self.url}")
        return Located(NO_FILE, remote.allowed(f"{self.url.rstrip('/')}/{path}", self.remote))

    def open(self, name: str) -> BinaryIO:
        """An object's bytes, read as they are asked for."""
        url = self.located(name).url
        assert url is not None
        return remote.open_remote(url, self.remote)

    def below(self, folder: str) -> Files:
        """The objects below another folder."""
        found = self.located(folder).url
        assert found is not None
        return RemoteFiles(found, self.remote)


def place_of(files: Files, name: str) -> str:
    """A file as messages name it."""
    whole = name.startswith("/") or "://" in name
    place = name if whole else f"{files.root.rstrip('/')}/{name.removeprefix('./')}"
    return remote.without_password(place)


def roots_of(locations: Locations) -> tuple[Path, ...]:
    """The folders that the location table names, resolved; files in it name none."""
    found = (entry.path.resolve() for entry in locations.entries if entry.path.is_dir())
    return tuple(dict.fromkeys(found))
