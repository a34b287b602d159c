"""`mm data inspect`: what there is to say of clips, on the terminal and as a page."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout

from mm_config.cli import JSON, LOCATION, RUNS_DIR, CommandLine, Option, Usage, Verb, html_file, whole_number
from mm_config.console import print_json, say, typed_path
from mm_config.durable import staged_file
from mm_config.schema import Problem, UserError

CLIPS = Option(
    "--clips",
    "Clips that are decoded, evenly spaced among all; they are on the page with a picture (default: 200).",
    "N",
    read=whole_number,
)
OUT = Option(
    "--out", "The page to write, an .html file that opens without a network.", "FILE", read=html_file
)
USAGE = Usage(
    "mm data inspect TARGET [--out FILE.html] [--clips N] [--json] [--spec.FIELD VALUE ...]",
    "Show what clips and captions there are, and what a training would make of them.",
    "Counts durations, sizes, rates and lengths of captions, finds clips that are there twice, by their "
    "bytes and by what their middle frame shows, and tells what a training leaves out and why, its buckets "
    "and what each of them gives. With --out it writes all of it as one page, with a small picture of each "
    "clip that was looked at.\n\n"
    "A target is a training (an experiment file, a saved spec, a run), or a folder, table or index of clips.",
    (OUT, CLIPS, JSON, RUNS_DIR, LOCATION),
    (
        ("mm data inspect experiments/tiny_high.py --out clips.html", "the clips of a training, as a page"),
        ("mm data inspect clips-index --json", "an index, for another program"),
    ),
)


def inspect(line: CommandLine) -> int:
    """Prints what was found, and writes the page."""
    from mm_data.looking.inspection import inspected
    from mm_data.looking.page import html_of
    from mm_data.looking.subject import subject_of
    from mm_data.looking.text import as_json, tell

    with redirect_stdout(sys.stderr) if line.has(JSON) else nullcontext():
        found = inspected(subject_of(line), line.value(CLIPS, 200))
    if line.has(JSON):
        print_json(as_json(found))
    else:
        tell(found)
    if out := line.value(OUT):
        try:
            with staged_file(out) as stage:
                stage.write_text(html_of(found), "utf-8")
        except OSError as error:
            raise UserError(Problem(str(out), f"can't be written: {error.strerror}")) from error
        if not line.has(JSON):
            say(f"page {typed_path(out)}")
    return 0


VERB = Verb(USAGE, inspect)
