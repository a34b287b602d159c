"""Where a published release lies on this machine, and whether it is what a spec describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from mm_config.schema import Problem, UserError
from mm_config.specs import (
    ClipImageEncoderSpec,
    ReleasedWeights,
    Umt5TextEncoderSpec,
    WanAutoencoderSpec,
    Weights,
)
from mm_models.released_json import read_release_json, require_harmless
from mm_models.weights.layouts import read

if TYPE_CHECKING:
    import torch

    from mm_config.options import Locations


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
    folder = release_place(weights, locations, path)
    if folder.is_file():
        raise UserError(Problem(path, f"{folder} is no folder"))
    return folder


def release_place(weights: Weights, locations: Locations | None, path: str) -> Path:
    """The folder of released weights, or their one file, as `release_folder` finds it.

    Raises:
        UserError: As `release_folder`, but for files.
    """
    if not isinstance(weights, ReleasedWeights):
        raise UserError(Problem(path, f"needs released weights, got {type(weights).__name__}"))
    place = located(weights, locations, path)
    if place.is_dir() and not (place / "config.json").is_file():
        raise UserError(Problem(path, f"{place} has no config.json"))
    return place


def folder_with_config(place: Path, network: str) -> Path | None:
    """Where the configuration of weights lies: in their folder, or beside a file if it is of that network.

    The original releases have a `config.json` of their transformer beside the files of other networks.

    Raises:
        UserError: It can't be read, or asks for more than to be read.
    """
    if place.is_dir():
        return place
    beside = place.parent / "config.json"
    found = read_release_json(beside) if beside.is_file() else {}
    named = (found.get("_class_name"), *_listed(found.get("architectures")))
    return place.parent if network in named else None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


ORIGINAL_TOKENIZER = Path("google", "umt5-xxl")
"""Where the original releases have the text encoder's tokenizer."""


def tokenizer_places(place: Path) -> tuple[Path, ...]:
    """The folders that a text encoder's tokenizer is sought in, by the place of the weights; the first that
    has a `tokenizer_config.json` is taken."""
    folder = place if place.is_dir() else place.parent
    return folder, folder.parent / "tokenizer", folder / ORIGINAL_TOKENIZER


def located(weights: ReleasedWeights, locations: Locations | None, path: str) -> Path:
    """The folder of a release, whatever it holds.

    Raises:
        UserError: Its name is not in the table, or the folder is missing.
    """
    if locations is None:
        raise UserError(Problem(path, f"no location table to find {weights.name!r} in"))
    try:
        place = locations.resolve(weights.name, weights.subfolder)
    except UserError as error:
        raise UserError(Problem(path, problem.message) for problem in error.problems) from error
    if not place.exists():
        raise UserError(Problem(path, f"{place} is no folder or file"))
    return place


_SHOWN = 60
"""Characters of a value that an error repeats."""

OURS = {
    WanAutoencoderSpec: release_place,
    Umt5TextEncoderSpec: release_place,
    ClipImageEncoderSpec: release_folder,
}
"""Encoders whose files are known here, and how they are found."""


def require_releases(encoders: Mapping[str, Any], locations: Locations | None) -> None:
    """Looks for the released weights of all encoders, before any of them is built.

    Args:
        encoders: Their specs by canonical path; None for one that is not there.
        locations: The table that resolves the names.

    Raises:
        UserError: Some can't be found; all of them are listed.
    """
    problems: list[Problem] = []
    for path, spec in encoders.items():
        weights = getattr(spec, "weights", None)
        if not isinstance(weights, ReleasedWeights):
            continue
        # What the folder of another package's encoder holds is that package's business.
        find = OURS.get(type(spec), located)
        try:
            find(weights, locations, f"{path}.weights")
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)


@contextmanager
def reading(folder: Path, path: str) -> Iterator[None]:
    """Makes what is wrong with a release's files a mistake of the user's, under the field that names it.

    Raises:
        UserError: A file is missing or damaged; `path` is the field that names the release.
    """
    try:
        yield
    except UserError as error:
        raise UserError(
            one if one.path.startswith("spec.") else Problem(path, str(one)) for one in error.problems
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(Problem(path, f"{folder} can't be read: {str(error).splitlines()[0]}")) from error


@contextmanager
def reading_by_library(folder: Path, path: str) -> Iterator[None]:
    """As `reading`, around nothing but a call of a library, whatever that raises over a damaged file."""
    try:
        yield
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        message = f"{folder} can't be read: {type(error).__name__}: {first}"
        raise UserError(Problem(path, message)) from error


def require_equal(folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> None:
    """Compares a release's configuration with the one that a spec describes.

    Args:
        folder: The release, for the error.
        stored: Its configuration.
        wanted: What the spec asks for, by the configuration's names.
        path: Canonical path of the spec.

    Raises:
        UserError: They differ; every difference is listed.
    """
    differing = [
        Problem(path, f"{name} is {str(stored.get(name))[:_SHOWN]} in {folder}, the spec asks for {value}")
        for name, value in wanted.items()
        if stored.get(name) != value
    ]
    if differing:
        raise UserError(differing)


def read_pretrained(network_class: Any, config: Any, folder: Path, dtype: torch.dtype, path: str) -> Any:
    """A network of transformers with all its weights, from a folder of safetensors.

    Args:
        network_class: Its class.
        config: Its configuration, which is not read from the folder.
        folder: The release.
        dtype: What its weights are cast to.
        path: The field that names the release.

    Raises:
        UserError: The folder lacks some of its weights, or they are damaged or of another architecture.
    """
    require_harmless(folder)
    if (folder / "adapter_config.json").exists():
        raise UserError(Problem(path, f"{folder} holds an adapter, which a network's folder does not"))
    read(folder)
    with reading_by_library(folder, path):
        network, report = network_class.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    if missing := sorted(report["missing_keys"]):
        raise UserError(Problem(path, f"{folder} lacks {', '.join(missing[:10])}"))
    return network
