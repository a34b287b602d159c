"""`mm data index`: clips as they are, measured once, as an index with the digest of what they are."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from mm_config.cli import JSON, LOCATION, CommandLine, Option, Usage, Verb, whole_number
from mm_config.console import print_json, print_lines
from mm_config.options import Locations, load_locations
from mm_config.rules import counted
from mm_config.specs import Pieces

NAME = Option("--name", "Logical name of the index (default: the name of DST).", "NAME")
PATH_COLUMN = Option("--path-column", "Column, key or tar member that names a clip's file.", "NAME")
CAPTION_COLUMN = Option("--caption-column", "Column, key or tar member that holds captions.", "NAME")
PIECES = Option(
    "--pieces",
    "Which samples are made of a long clip: one, pieces of --piece-frames one after the other, such pieces "
    "every --piece-stride frames, --piece-count of them over its whole length, or one for each cut "
    "that the source lists (default: whole).",
    "PIECES",
    tuple(piece.value for piece in Pieces),
)
FRAMES = Option("--piece-frames", "Frames of a piece, in the clip's own rate.", "N", read=whole_number)
STRIDE = Option("--piece-stride", "Frames from one window's start to the next's.", "N", read=whole_number)
COUNT = Option("--piece-count", "Pieces of a clip that are equally far apart.", "N", read=whole_number)
REMOTE = Option(
    "--remote",
    "What may be read over the network: s3://BUCKET or a folder in it, or the http(s):// address of an S3 "
    "service that is not Amazon's. May be repeated.",
    "URL",
    repeatable=True,
)
WORKERS = Option("--workers", "Threads that measure (default: one per processor).", "N", read=whole_number)
ISOLATED = Option("--isolated", "Look at files in processes with limits, as strangers' files should be.")
REPLACE = Option("--replace", "Put the index in the place of one with other rows, once it is whole.")
USAGE = Usage(
    "mm data index SRC DST [--name NAME] [--path-column NAME] [--caption-column NAME] [--pieces PIECES] "
    "[--piece-frames N] [--piece-stride N] [--piece-count N] [--remote URL ...] "
    "[--location NAME=PATH ...] [--workers N] [--isolated] [--replace] [--json]",
    "Measure clips and write their index, with the line for the spec.",
    "SRC is what people have: a folder of videos and pictures with .txt captions beside them; a table with a "
    "column for files and one for captions (.json list, .jsonl, .csv, .tsv, .parquet), also as metadata.* in "
    "the folder of the clips, as Hugging Face and DiffSynth keep them; MindSpeed-MM's data.txt; "
    "musubi-tuner's dataset TOML; uncompressed tar shards as WebDataset has them; what `datasets` saves on "
    "disk; a logical name; or one of these below s3://.\n\n"
    "Every file is opened once and measured without decoding more than one picture: true frames, size as it "
    "is shown, rate, codec, sha256. Declared values that disagree are told, and so is every clip that is "
    "left out, with its reason. Work that was interrupted is gone on with. DST is written when all is known; "
    "run again, the command tells clip by clip what came, went and differs.\n\n"
    "Clips lie inside SRC, or inside a folder that --location or locations.yaml names. Pictures are clips of "
    "one frame.",
    (
        *(
            NAME,
            PATH_COLUMN,
            CAPTION_COLUMN,
            PIECES,
            FRAMES,
            STRIDE,
            COUNT,
            REMOTE,
            LOCATION,
            WORKERS,
            ISOLATED,
            REPLACE,
        ),
        JSON,
    ),
    (
        ("mm data index clips clips-index", "a folder of clips with captions beside them"),
        ("mm data index data.json pixabay --location media=/mnt/pixabay", "a list of clips elsewhere"),
        ("mm data index films films-17 --pieces chunks --piece-frames 17", "samples of 17 frames each"),
        ("mm data index s3://clips/shards shards --remote s3://clips", "tar shards in a bucket"),
    ),
    words=("SRC", "DST"),
    takes="files",
)


def index(line: CommandLine) -> int:
    """Writes the index of SRC."""
    from mm_data.index.making import cutting_of, make_index
    from mm_data.index.report import tell, tell_differences
    from mm_data.index.sources.files import roots_of
    from mm_data.index.sources.opening import Reading

    source, folder = line.words[0], Path(line.words[1])
    locations = load_locations(line.values(LOCATION))
    reading = Reading(
        line.value(PATH_COLUMN),
        line.value(CAPTION_COLUMN),
        roots_of(locations),
        line.values(REMOTE),
        isolated=line.has(ISOLATED),
    )
    pieces = Pieces(line.value(PIECES, Pieces.WHOLE.value))
    with redirect_stdout(sys.stderr) if line.has(JSON) else nullcontext():
        built, spec_lines, notes = make_index(
            _path_of(source, locations),
            folder,
            name=line.value(NAME, folder.absolute().name),
            reading=reading,
            cutting=cutting_of(pieces, line.value(FRAMES), line.value(STRIDE), line.value(COUNT)),
            workers=line.value(WORKERS),
            replace=line.has(REPLACE),
        )
    allowed = f", remote={reading.remote!r})" if reading.remote else ")"
    spec = f"{built.spec_line.removesuffix(')')}{allowed}"
    if line.has(JSON):
        found = {"spec": spec, "folder": str(built.folder), "digest": built.head.digest}
        print_json(
            {**found, "data": spec_lines, "notes": notes, "stats": built.stats, "changes": built.changes}
        )
        return 0
    tell(built.stats, built.left_out, built.mismatches)
    if built.changes is not None:
        print_lines([f"{counted(len(built.changes), 'change')} since the index that was there"])
        tell_differences(built.changes)
    print_lines([*notes, "", f"dataset={spec},", *spec_lines])
    print_lines(["", f"found by   --location {shlex.quote(f'{built.head.name}={built.folder}')}"])
    return 0


def _path_of(source: str, locations: Locations) -> str:
    """A path or url as it is; a logical name as its path."""
    known = any(entry.name == source for entry in locations.entries)
    return str(locations.resolve(source)) if known and not os.path.lexists(source) else source


VERB = Verb(USAGE, index)
