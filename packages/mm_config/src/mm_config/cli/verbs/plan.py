"""`mm plan`: what a spec costs, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mm_config.cli.page import Usage, print_usage
from mm_config.cli.plan_page import plan_lines
from mm_config.cli.scan import HELP, JSON, RUNS_DIR, CommandLine, Option, scan
from mm_config.cli.targets import TARGET_HELP, read_targets
from mm_config.errors import Problem, UserError
from mm_config.plan import plan

WORLD_SIZE = Option("--world-size", "Number of ranks that share the work (default: 1).", "N")
USAGE = Usage(
    "mm plan TARGET [--world-size N] [--json] [--spec.FIELD VALUE ...] [--runs-dir DIR]",
    "Counts parameters, tokens, floating-point operations and bytes per rank from the spec alone; "
    f"nothing is built or loaded.\n\n{TARGET_HELP}",
    (WORLD_SIZE, JSON, RUNS_DIR),
    (
        ("mm plan experiments/tiny_high.py", "on one device"),
        ("mm plan experiments/tiny_high.py --world-size 8", "sharded over eight"),
        ("mm plan experiments/tiny_high.py --spec.micro-batch-size 4", "with smaller passes"),
    ),
)


def run(argv: Sequence[str]) -> int:
    """Count parameters, tokens, FLOPs and bytes per rank of a spec."""
    line = scan(argv, USAGE.options)
    if line.has(HELP):
        print_usage(USAGE)
        return 0
    world_size = _world_size(line)
    (spec,) = read_targets(line, USAGE, count=1, world_size=world_size)
    if line.has(JSON):
        print(json.dumps(plan(spec, world_size).to_json(), indent=2))
    else:
        print("\n".join(plan_lines(spec, world_size)))
    return 0


def _world_size(line: CommandLine) -> int:
    text = line.value(WORLD_SIZE) or "1"
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise UserError(Problem(WORLD_SIZE.flag, f"expected a whole number of at least 1, got {text!r}"))
    return int(text)
