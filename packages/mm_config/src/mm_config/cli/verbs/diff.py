"""`mm diff`: what differs between two specs, and what it can change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mm_config.cli.page import Usage, print_usage
from mm_config.cli.scan import HELP, JSON, RUNS_DIR, scan
from mm_config.cli.targets import TARGET_HELP, read_targets
from mm_config.cli.values import plain
from mm_config.diff import Change, diff, format_changes
from mm_config.identity import exact_hash, spec_hash

USAGE = Usage(
    "mm diff A B [--json] [--spec.FIELD VALUE ...] [--runs-dir DIR]",
    "Prints each field that differs between two specs, grouped by what it can change, old value and new. "
    "Fields on the command line are put into the second.\n\n"
    "Exit status: 0 where the exact ids are equal (labels and paths may differ), 1 where they differ, "
    f"2 for a mistake.\n\n{TARGET_HELP}",
    (JSON, RUNS_DIR),
    (
        ("mm diff experiments/tiny_high.py experiments/tiny_low.py", "two experiments"),
        ("mm diff 7f3a91c2 experiments/tiny_high.py", "what has changed since a stored run"),
        ("mm diff experiments/tiny.py experiments/tiny.py --spec.steps 30", "what an override changes"),
    ),
)


def run(argv: Sequence[str]) -> int:
    """Print what differs between two specs, grouped by what it can change."""
    line = scan(argv, USAGE.options)
    if line.has(HELP):
        print_usage(USAGE)
        return 0
    old, new = read_targets(line, USAGE, count=2)
    changes = diff(old, new)
    equal = exact_hash(old) == exact_hash(new)
    if line.has(JSON):
        report = {
            "equal": equal,
            "spec_hash": [spec_hash(old), spec_hash(new)],
            "exact_hash": [exact_hash(old), exact_hash(new)],
            "changes": [_as_json(change) for change in changes],
        }
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print("\n".join(format_changes(changes)) or "equal")
    return 0 if equal else 1


def _as_json(change: Change) -> dict[str, Any]:
    return {
        "path": change.path,
        "role": change.role.value,
        "old": plain(change.old),
        "new": plain(change.new),
        "unit": change.unit,
        "by_hash": change.by_hash,
    }
