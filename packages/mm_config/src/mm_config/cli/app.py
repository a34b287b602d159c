"""`mm`: one command with verbs, which packages register by entry points."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version

from mm_config.cli.exits import exit_status
from mm_config.cli.page import BLANK, example_lines, paragraph, print_page
from mm_config.cli.verb import load_verb, verb_lines, verb_named
from mm_config.console.output import print_lines
from mm_config.schema.errors import Problem, UserError

COMPLETE = "_complete"
"""What the shells' completion scripts call; no verb, so that no help and no suggestion names it."""
_HELP = ("-h", "--help", "help")
EXAMPLES = (
    ("python experiments/tiny.py", "run an experiment"),
    ("mm show experiments/tiny.py", "what an experiment says"),
    ("mm plan experiments/tiny_high.py --world-size 8", "what it needs on 8 ranks"),
    ("mm diff experiments/tiny_high.py experiments/tiny_low.py", "what differs between two"),
    ("mm runs list", "what was run here"),
    ("mm reproduce 7f3a91c2", "run it again, and prove that it is the same"),
    ("mm import mindspeed model.json pretrain.sh --out mine.py", "come from MindSpeed-MM"),
    ("mm doctor", "what works on this machine, and how to get what is missing"),
    ('eval "$(mm completion bash)"', "complete with TAB in this shell"),
)


def app(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns its exit status: 0 done, 2 a user's mistake, a verb's own otherwise.

    Args:
        argv: The words after `mm`; the process's by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return exit_status(lambda: _app(words))


def _app(words: list[str]) -> int:
    if len(words) > 1 and words[0] in _HELP:
        return load_verb(verb_named(words[1])).run([*words[2:], "--help"])
    if not words or words[0] in _HELP:
        _print_help()
        return 0
    if words[0] == "--version":
        if len(words) > 1:
            raise UserError(Problem(words[0], f"stands alone, got {' '.join(words[1:])}"))
        print_lines([f"mm {version('mm-config')}"])
        return 0
    if words[0] == COMPLETE:
        from mm_config.cli.verbs.completion import answer

        return answer(words[1:])
    return load_verb(verb_named(words[0])).run(words[1:])


def _print_help() -> None:
    about = "Answers questions about specs and runs of video diffusion."
    lines = [*paragraph("usage: mm VERB ..."), BLANK, *paragraph(about)]
    print_page([*lines, BLANK, *verb_lines(), *example_lines(EXAMPLES)])
