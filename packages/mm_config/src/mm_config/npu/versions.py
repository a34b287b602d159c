"""Versions of torch, torch_npu, CANN and Python that go together."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

SOURCE = "Ascend/pytorch's compatibility table of August 2026"


@attrs.frozen
class Pairing:
    """A release of torch_npu and the release of CANN that it is documented for."""

    torch_npu: str
    """Version of torch_npu."""
    cann: str
    """Version of CANN."""

    @property
    def torch(self) -> str:
        """The release of torch that it is built for."""
        return torch_of(self.torch_npu)


PAIRINGS: tuple[Pairing, ...] = (
    Pairing("2.12.0", "9.1.0"),
    Pairing("2.11.0", "9.1.0"),
    Pairing("2.10.0.post4", "9.1.0"),
    Pairing("2.9.0.post6", "9.1.0"),
    Pairing("2.7.1.post8", "9.1.0"),
    Pairing("2.9.0.post2", "9.0.0"),
    Pairing("2.8.0.post4", "9.0.0"),
    Pairing("2.7.1.post4", "9.0.0"),
    Pairing("2.9.0", "8.5.0"),
    Pairing("2.8.0.post2", "8.5.0"),
    Pairing("2.7.1.post2", "8.5.0"),
    Pairing("2.6.0.post5", "8.5.0"),
    Pairing("2.8.0", "8.3.RC1"),
    Pairing("2.7.1", "8.3.RC1"),
    Pairing("2.6.0.post3", "8.3.RC1"),
)
"""From `SOURCE`, newest CANN first."""
NEWEST = PAIRINGS[0]
PYTHONS = ((3, 10), (3, 14))
"""First and last Python that the wheels of torch_npu 2.12 and 2.13 are built for."""


def torch_of(torch_npu: str) -> str:
    """The release of torch that a release of torch_npu is built for: `2.10.0` for `2.10.0.post4`."""
    found = re.match(r"[0-9]+(\.[0-9]+)*", torch_npu)
    return found[0] if found else torch_npu


def cann_of(torch_npu: str) -> str | None:
    """The release of CANN that a release of torch_npu is documented for; None where nothing is documented."""
    return next((pairing.cann for pairing in PAIRINGS if pairing.torch_npu == torch_npu), None)


def torch_npu_for(torch: str, cann: str | None) -> str:
    """What to install beside a release of torch: the release documented for a CANN, else the newest.

    Args:
        torch: A version, with or without its local part (`2.12.0+cpu`).
        cann: The installed CANN, where it is known.
    """
    release = torch.partition("+")[0]
    fitting = [pairing for pairing in PAIRINGS if pairing.torch == release]
    exact = [pairing for pairing in fitting if pairing.cann == cann]
    chosen = next(iter(exact or fitting), None)
    return f"torch_npu=={chosen.torch_npu}" if chosen else f"torch_npu=={release}.*"


# `version=9.1.0`, `Version=7.6.0.1.220:8.2.RC1` and `runtime_running_version=[7.6.0.1.220:8.2.RC1]`; the
# long number before the colon, or alone, is a component's own.
_VERSION_LINE = re.compile(
    r"^[\w-]*version\s*=\s*\[?(?:[^\]\s]*:)?([0-9]+\.[0-9]+(?:\.\w+){0,2})\]?\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_FOLDER = re.compile(r"(?:^|-)([0-9]+\.[0-9]+\.\w+)$")
_FILES = (
    "*-linux/ascend_toolkit_install.info",
    "ascend_toolkit_install.info",
    "version.cfg",
    "runtime/version.info",
    "compiler/version.info",
    "share/info/runtime/version.info",
)
"""Where releases of CANN say what they are."""


def cann_folder(environment: Mapping[str, str]) -> Path | None:
    """The CANN that `set_env.sh` has put into an environment."""
    names = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
    return next((Path(environment[name]) for name in names if environment.get(name)), None)


def cann_version(folder: Path) -> str | None:
    """The release of an installed CANN: what its files say, else its folder's name; None if neither does."""
    for file in _version_files(folder):
        if found := _VERSION_LINE.search(file.read_text("utf-8", errors="replace")):
            return found[1]
    named = _FOLDER.search(Path(os.path.realpath(folder)).name)
    return named[1] if named else None


def _version_files(folder: Path) -> Iterator[Path]:
    for pattern in _FILES:
        yield from (file for file in sorted(folder.glob(pattern)) if file.is_file())
