"""Folders of videos and pictures, with a caption beside each."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from mm_config.schema import Problem, UserError
from mm_data.index.listed import LeftOut, Listed
from mm_data.index.sources.files import Files, place_of
from mm_data.index.sources.rows import NO_CAPTION, captions_in
from mm_data.index.sources.tables import suffix_of, text_of
from mm_data.manifest import capped

VIDEOS = frozenset(
    (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".ts", ".mts", ".m2ts", ".3gp", ".avi", ".flv", ".wmv", ".mpg")
)
"""Endings that are taken for videos; whether one can be read is measured."""
PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
"""Endings that are taken for pictures, clips of one frame."""
MEDIA = VIDEOS | PICTURES
CAPTION = ".txt"
MOST_OF_A_TEXT = 2**20
OTHER = "its name's ending is no video's, picture's or caption's"
OTHER_KIND = "pictures and videos are kept apart, and it is the other"
_READERS, _AHEAD = 16, 1024
ALONE = "a caption without a clip beside it"


def beside(
    files: Files, extension: str = CAPTION, kinds: frozenset[str] = MEDIA
) -> Iterator[Listed | LeftOut]:
    """The clips of a folder and of those in it, by name, each with the text beside it.

    Args:
        files: The folder.
        extension: How the name of a caption's file ends, where the clip's has its own ending.
        kinds: The endings of clips.

    Raises:
        UserError: A link leads out of the allowed folders, or captions can't be read.
    """
    names = list(files.names())
    there, stems = set(names), {_stem(name) for name in names if suffix_of(name) in MEDIA}
    problems: list[Problem] = []

    def one(name: str) -> Listed | LeftOut | list[str] | None:
        if name.endswith(extension):
            alone = name.removesuffix(extension) not in stems
            return LeftOut(name, place_of(files, name), ALONE) if alone else None
        if suffix_of(name) not in kinds:
            other = OTHER_KIND if suffix_of(name) in MEDIA else OTHER
            return LeftOut(name, place_of(files, name), other)
        return _one(files, name, _stem(name) + extension, there)

    # Each caption is a file of its own, perhaps over a network.
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(names), _AHEAD):
            chunk = names[start : start + _AHEAD]
            for name, found in zip(chunk, pool.map(one, chunk), strict=True):
                if isinstance(found, list):
                    problems += [Problem(place_of(files, name), message) for message in found]
                elif found is not None:
                    yield found
    if problems:
        raise UserError(capped(problems, files.root))


def _one(files: Files, name: str, caption: str, there: set[str]) -> Listed | LeftOut | list[str]:
    """A clip with its caption, or what is wrong with them."""
    place, wrong = place_of(files, name), list[str]()
    try:
        located = files.located(name)
        if caption not in there:
            return LeftOut(name, place, NO_CAPTION)
        with files.open(caption) as file:
            captions = captions_in(text_of(file, caption, MOST_OF_A_TEXT), caption, wrong)
    except ValueError as error:
        # A UserError, too: the caption's file is named in it.
        return [str(error)]
    except OSError as error:
        return [f"{caption} can't be read: {error.strerror or error}"]
    if wrong:
        return wrong
    if not captions:
        return LeftOut(name, place, NO_CAPTION)
    return Listed(name, located.path, captions, place, url=located.url)


def _stem(name: str) -> str:
    return name.removesuffix(name[len(name) - len(suffix_of(name)) :])
