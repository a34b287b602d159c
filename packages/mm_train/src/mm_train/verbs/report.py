"""`mm report`: how trainings went, as one page that opens without a network."""

from __future__ import annotations

from mm_config.cli import RUNS_DIR, CommandLine, Option, Usage, Verb, find_run, html_file, runs_dir_of
from mm_config.console import say, typed_path
from mm_config.durable import staged_file
from mm_config.schema import Problem, UserError, gathering

OUT = Option(
    "--out",
    "The page to write, an .html file that opens without a network.",
    "FILE",
    read=html_file,
    missing="it says where the page goes, such as --out report.html",
)
USAGE = Usage(
    "mm report RUN [RUN ...] --out FILE.html",
    "Show how trainings went: curves, time by part, memory, samples, and what differs between them.",
    "The page holds everything: each training's spec, what differs from the run that it started from and "
    "between the runs, losses, also on held-out clips by noise level, norm, learning rate and throughput "
    "(smoothed and on a logarithmic scale as one likes), where the time went, and the videos that were made "
    "on the way. A run that is still going is shown as far as it has come.\n\n"
    "A run is named by its folder, its id, or the beginning of its hash.",
    (OUT, RUNS_DIR),
    (
        ("mm report runs/tiny_high/20261130-... --out report.html", "one training"),
        ("mm report 3f2a91 77be04 --out both.html", "two of them, one beside the other"),
    ),
    words=("RUN", "..."),
    takes="runs",
)


def report(line: CommandLine) -> int:
    """Writes the page."""
    from mm_train.report.page import html_of
    from mm_train.report.reading import Told, told_by

    problems: list[Problem] = []
    runs: list[Told] = []
    for word in line.words:
        with gathering(problems):
            runs.append(told_by(find_run(word, runs_dir_of(line))))
    if problems:
        raise UserError(problems)
    out = line.value(OUT)
    try:
        with staged_file(out) as stage:
            stage.write_text(html_of(runs), "utf-8")
    except OSError as error:
        raise UserError(Problem(str(out), f"can't be written: {error.strerror}")) from error
    say(f"page {typed_path(out)}")
    return 0


VERB = Verb(USAGE, report)
