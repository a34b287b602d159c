"""Paths in files as locations: logical names that the experiment holds, and flags that say where they lie.

A reading's target is `--location NAME` or `--runs-dir` here; what differs from the first is a conflict as
with fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from mm_config.importing.facts import Fact
from mm_config.importing.mindspeed.base import CLIPS, FEATURES
from mm_config.importing.mindspeed.files import Files, Known
from mm_config.importing.mindspeed.keys import DATA, FLAG, NATIVE
from mm_config.importing.mindspeed.places import RELEASES, is_placeholder, release_of
from mm_config.importing.nodes import as_in_file
from mm_config.importing.readings import Reading, refused, said, silent
from mm_config.importing.verdict import Verdict
from mm_config.schema.types import is_tuple
from mm_config.specs.weights import ReleasedWeights

_RELEASE_PARTS = (
    ("ae.from_pretrained", "vae"),
    ("text_encoder.from_pretrained", "text_encoder"),
    ("tokenizer.from_pretrained", "tokenizer"),
    ("ae.i2v_processor.image_encoder", "image_encoder"),
    ("image_encoder.from_pretrained", "image_encoder"),
)
_FIELDS = {
    "vae": "autoencoder.weights",
    "text_encoder": "text_encoder.weights",
    "tokenizer": "text_encoder.weights",
    "image_encoder": "image_encoder.weights",
}
_TOKENIZERS = (
    "dataset_param.tokenizer_config.from_pretrained",
    "dataset_param.tokenizer_config.pretrained_model_name_or_path",
    "dataset_param.tokenizer_config[].from_pretrained",
)
_CLIPS = (
    "dataset_param.basic_parameters.data_folder",
    "dataset_param.data_folder",
    "dataset_param.basic_parameters.data_path",
    "dataset_param.json_path",
)


def releases(files: Files, known: Known) -> Iterator[Reading]:
    """Folders of released parts."""
    release = release_of(known.family)
    parts = [(files.fact(files.kind, path), part) for path, part in _RELEASE_PARTS]
    parts += [(files.fact(DATA, path), "tokenizer") for path in _TOKENIZERS]
    folders: dict[str, str] = {}
    for fact, part in parts:
        if fact is None or not _is_read(files, fact):
            continue
        if (wrong := _wrong(fact)) is not None:
            yield wrong
            continue
        path = PurePosixPath(str(fact.value))
        if path.name != part:
            text = (
                f"--location {release}=FOLDER, where FOLDER/{part} is {as_in_file(fact.value)}: a release "
                "is one folder here"
            )
            yield said(Verdict.OPEN, fact, text)
            continue
        named = RELEASES.get(path.parent.name, release)
        if named != release:
            subfolder = "text_encoder" if part == "tokenizer" else part
            yield silent(fact, _FIELDS[part], ReleasedWeights(name=named, subfolder=subfolder))
        yield _folder(fact, named, str(path.parent), folders)
    whole = files.fact(NATIVE, "model.model_name_or_path")
    if whole is not None:
        yield _wrong(whole) or _folder(whole, release, str(whole.value), folders)


def clips(files: Files, known: Known) -> Iterator[Reading]:
    """The folder of clips, or of features that were computed before."""
    name = CLIPS if files.holds("raw") and files.holds("text") else FEATURES
    found: str | None = None
    for path in _CLIPS:
        fact = files.fact(DATA, path)
        if fact is None:
            continue
        if fact.value == "":
            text = "is empty: paths of clips are relative to the list of clips"
            yield said(Verdict.DERIVED, fact, text)
        elif (wrong := _wrong(fact)) is not None:
            yield wrong
        else:
            value = str(fact.value)
            folder = value if path.endswith("folder") else found or str(PurePosixPath(value).parent)
            found = found or folder
            what = (
                "features that were computed before"
                if name == FEATURES
                else "`path` and `caption` of each clip"
            )
            text = f"--location {name}={folder}"
            listed = "" if path.endswith("folder") else f": its manifest lists {what}"
            yield Reading(fact, Verdict.MAPPED, text + listed, f"--location {name}", folder)


def run_folders(files: Files, known: Known) -> Iterator[Reading]:
    """Where runs are put."""
    for kind, path in ((FLAG, "--save"), (NATIVE, "training.save"), (files.kind, "save_path")):
        fact = files.fact(kind, path)
        if fact is None:
            continue
        if is_tuple(fact.value):
            text = "is a text of several words and no path; say it by --runs-dir"
            yield said(Verdict.OUTSIDE, fact, text)
        elif (wrong := _wrong(fact, "--runs-dir")) is not None:
            yield wrong
        else:
            text = "--runs-dir: each run gets a folder of its own below it"
            yield Reading(fact, Verdict.MAPPED, text, "--runs-dir", str(fact.value))


def _is_read(files: Files, fact: Fact) -> bool:
    return all(map(files.holds, files.rows[fact].when.split()))


def _wrong(fact: Fact, flag: str = "--location") -> Reading | None:
    """What is told of a value that is no path."""
    if not isinstance(fact.value, (str, tuple)) or fact.value == "" or "\0" in fact.value:
        return refused(fact, "expected a path")
    if is_placeholder(fact.value):
        return said(Verdict.OPEN, fact, f"is no path, but a text that stands for one: say it by {flag}")
    return None


def _folder(fact: Fact, release: str, folder: str, folders: dict[str, str]) -> Reading:
    known = folders.setdefault(release, folder)
    if known != folder:
        text = f"lies in {folder}, other parts of the release in {known}; a release is one folder"
        return said(Verdict.CONFLICT, fact, text)
    return Reading(fact, Verdict.MAPPED, f"--location {release}={folder}", f"--location {release}", folder)
