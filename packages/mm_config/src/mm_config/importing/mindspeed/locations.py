"""Paths in files as locations: logical names that the experiment holds, and flags that say where they lie."""

from __future__ import annotations

from pathlib import PurePosixPath

from mm_config.importing.facts import Fact
from mm_config.importing.mindspeed.base import CLIPS, FEATURES
from mm_config.importing.mindspeed.book import Book
from mm_config.importing.mindspeed.network import FAMILIES, release_of
from mm_config.importing.mindspeed.rows import FLAG
from mm_config.importing.nodes import as_in_file
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
_RELEASES = {name.rpartition("/")[2]: name for name in map(release_of, FAMILIES.values()) if name}
"""Releases by the name of the folder that they are downloaded into."""
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


def read_locations(book: Book, kind: str, release: str) -> None:
    """Notes the paths that files give.

    Args:
        book: The facts.
        kind: The file of the network.
        release: The logical name of the family's release.
    """
    parts = [(book.fact(kind, path), part) for path, part in _RELEASE_PARTS]
    parts += [(book.fact("data.json", path), "tokenizer") for path in _TOKENIZERS]
    for fact, part in parts:
        if fact is not None and _is_mapped(book, fact):
            _part(book, fact, part, release)
    whole = book.fact("native.yaml", "model.model_name_or_path")
    if whole is not None and _text(book, whole):
        _note(book, whole, release, str(whole.value))
    name = CLIPS if book.conditions["raw"] and book.conditions["text"] else FEATURES
    for path in _CLIPS:
        fact = book.fact("data.json", path)
        if fact is not None and _text(book, fact, empty=True):
            _clips(book, fact, name)
    for kind_of, path in ((FLAG, "--save"), ("native.yaml", "training.save"), (kind, "save_path")):
        fact = book.fact(kind_of, path)
        if fact is None or not _is_mapped(book, fact):
            continue
        if is_tuple(fact.value):
            book.mark(fact, Verdict.OUTSIDE, "is a text of several words and no path; say it by --runs-dir")
        elif _text(book, fact):
            book.paths["--runs-dir"] = str(fact.value)
            book.mark(fact, Verdict.MAPPED, "--runs-dir: each run gets a folder of its own below it")


def _is_mapped(book: Book, fact: Fact) -> bool:
    row = book.row(fact)
    return row is not None and all(book.conditions[name] for name in row.when.split())


def _text(book: Book, fact: Fact, *, empty: bool = False) -> bool:
    if isinstance(fact.value, str) and (fact.value or empty) and "\0" not in fact.value:
        return True
    book.refuse(fact, "expected a path")
    return False


def _part(book: Book, fact: Fact, part: str, release: str) -> None:
    if not _text(book, fact):
        return
    path = PurePosixPath(str(fact.value))
    if path.name == part:
        named = _RELEASES.get(path.parent.name, release)
        if named != release:
            subfolder = "text_encoder" if part == "tokenizer" else part
            book.set(_FIELDS[part], ReleasedWeights(name=named, subfolder=subfolder), fact)
        _note(book, fact, named, str(path.parent))
        return
    book.mark(
        fact,
        Verdict.MAPPED,
        f"--location {release}=FOLDER, where FOLDER/{part} is {as_in_file(fact.value)}: a release is one "
        "folder here",
    )
    book.paths.setdefault(release, "FOLDER")


def _note(book: Book, fact: Fact, release: str, folder: str) -> None:
    known = book.paths.get(release)
    if known not in (None, "FOLDER", folder):
        book.mark(
            fact,
            Verdict.CONFLICT,
            f"lies in {folder}, other parts of the release in {known}; a release is one folder",
        )
        return
    book.paths[release] = folder
    book.mark(fact, Verdict.MAPPED, f"--location {release}={folder}")


def _clips(book: Book, fact: Fact, name: str) -> None:
    value = str(fact.value)
    if not value:
        book.mark(fact, Verdict.DERIVED, "is empty: paths of clips are relative to the list of clips")
        return
    if fact.path.endswith("folder"):
        book.paths[name] = value
        book.mark(fact, Verdict.MAPPED, f"--location {name}={value}")
        return
    folder = str(PurePosixPath(value).parent)
    book.paths.setdefault(name, folder)
    what = "features that were computed before" if name == FEATURES else "`path` and `caption` of each clip"
    book.mark(fact, Verdict.MAPPED, f"--location {name}={book.paths[name]}: its manifest lists {what}")
