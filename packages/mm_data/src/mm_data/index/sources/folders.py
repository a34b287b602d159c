"""Folders of videos and pictures, with a caption beside each."""

from __future__ import annotations

from collections.abc import Iterator

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
    for name in names:
        place = place_of(files, name)
        if name.endswith(extension):
            if name.removesuffix(extension) not in stems:
                yield LeftOut(name, place, ALONE)
        elif suffix_of(name) not in kinds:
            yield LeftOut(name, place, OTHER_KIND if suffix_of(name) in MEDIA else OTHER)
        else:
            wrong: list[str] = []
            found = _one(files, name, place, _stem(name) + extension, there, wrong)
            problems += [Problem(place, message) for message in wrong]
            if found is not None and not wrong:
                yield found
    if problems:
        raise UserError(capped(problems, files.root))


def _one(
    files: Files, name: str, place: str, caption: str, there: set[str], wrong: list[str]
) -> Listed | LeftOut | None:
    try:
        located = files.located(name)
        if caption not in there:
            return LeftOut(name, place, NO_CAPTION)
        with files.open(caption) as file:
            text = text_of(file, caption, MOST_OF_A_TEXT)
    except ValueError as error:
        # A UserError, too: the caption's file is named in it.
        wrong.append(str(error))
    except OSError as error:
        wrong.append(f"{caption} can't be read: {error.strerror or error}")
    else:
        captions = captions_in(text, caption, wrong)
        if not captions:
            return LeftOut(name, place, NO_CAPTION)
        return Listed(name, located.path, captions, place, url=located.url)
    return None


def _stem(name: str) -> str:
    return name.removesuffix(name[len(name) - len(suffix_of(name)) :])
