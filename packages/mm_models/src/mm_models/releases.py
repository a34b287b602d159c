"""Where a published release lies on this machine, and in which number format it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from mm_config.errors import Problem, UserError
from mm_config.specs.kinds import Weights
from mm_config.specs.weights import ReleasedWeights

if TYPE_CHECKING:
    from mm_config.locations import Locations


def release_folder(weights: Weights, locations: Locations | None, path: str) -> Path:
    """The folder of released weights.

    Args:
        weights: Where they come from.
        locations: The table that resolves their name.
        path: Canonical path of the field that holds the weights, for the error.

    Raises:
        UserError: The weights are no release, their name is not in the table, or the folder is missing or
            describes no network.
    """
    if not isinstance(weights, ReleasedWeights):
        raise UserError(Problem(path, f"needs released weights, got {type(weights).__name__}"))
    if locations is None:
        raise UserError(Problem(path, f"no location table to find {weights.name!r} in"))
    folder = locations.resolve(weights.name) / weights.subfolder
    if not folder.is_dir():
        raise UserError(Problem(path, f"{folder} is no folder"))
    if not (folder / "config.json").is_file():
        raise UserError(Problem(path, f"{folder} has no config.json"))
    return folder


@contextmanager
def reading(folder: Path, path: str) -> Iterator[None]:
    """Makes what libraries raise over a release's broken files a mistake of the user's.

    Raises:
        UserError: A file is missing or damaged; `path` is the field that names the release.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(Problem(path, f"{folder} can't be read: {str(error).splitlines()[0]}")) from error
