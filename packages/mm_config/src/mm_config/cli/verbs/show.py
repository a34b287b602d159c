"""`mm show`: a spec as a page, a file, an experiment or one line per field."""

from __future__ import annotations

from mm_config.cli.line_targets import read_whole_targets
from mm_config.cli.page import page_width, print_page
from mm_config.cli.scan import RUNS_DIR, CommandLine, Option
from mm_config.cli.targets import TARGET_HELP
from mm_config.cli.values import for_shell
from mm_config.cli.verb import Usage, Verb
from mm_config.console.output import print_lines, print_text
from mm_config.schema.decorator import tag_of
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.evolve import leaves
from mm_config.schema.types import class_of
from mm_config.stored import files
from mm_config.stored.layers import layers_of

FORMAT = Option(
    "--format",
    "A page to read (default), a file that loads back, the same by layers (weights, inference, request) and "
    "with the requests beside the spec, an experiment file that gives the same ids, or one line per field.",
    choices=("summary", "json", "yaml", "layers", "python", "flat"),
    metavar="FORMAT",
)
USAGE = Usage(
    "mm show TARGET [--format FORMAT] [--spec.FIELD VALUE ...] [--runs-dir DIR]",
    "Show what a spec says, as a page, a file, an experiment or one line per field.",
    "Shows what a spec says: the page holds what is not at its default, the other formats hold "
    "everything. Of a video, and of a run of mm generate, the page and the lines also hold the request that "
    f"stands beside the spec.\n\n{TARGET_HELP}",
    (FORMAT, RUNS_DIR),
    (
        ("mm show experiments/tiny.py", "a page to read"),
        ("mm show experiments/tiny.py --format flat | grep guidance", "find a field and its path"),
        ("mm show circle.mp4", "what made a video, wherever the file lies by now"),
        ("mm show 7f3a91c2 --format yaml > spec.yaml", "save a stored run's spec"),
        ("mm show circle.mp4 --format layers > circle.json", "save what made a video; mm generate takes it"),
        ("mm show 7f3a91c2 --format python > experiments/again.py", "make it an experiment"),
    ),
)


def show(line: CommandLine) -> int:
    """Prints what the target says."""
    (target,) = read_whole_targets(line)
    spec = target.spec
    match line.value(FORMAT):
        case "json" | "yaml" as kind:
            print_text(files.dumps(spec, kind))
        case "layers":
            if not layers_of(class_of(spec)):
                raise UserError(Problem(FORMAT.flag, f"a {tag_of(spec)} spec has no layers"))
            print_text(files.dumps(spec, by_layers=True, requests=target.requests))
        case "python":
            from mm_config.stored.source import to_source

            print_text(to_source(spec))
        case "flat":
            named = [("spec", spec), *target.named_requests]
            print_lines(
                f"{name}.{leaf.path} = {for_shell(leaf.value)}" for name, one in named for leaf in leaves(one)
            )
        case _:
            from mm_config.cli.summary import request_lines, summary_lines

            width = page_width()
            print_page(
                [*request_lines(target.named_requests, target.mark, width), *summary_lines(spec, width)]
            )
    return 0


VERB = Verb(USAGE, show)
