"""`mm doctor`: what works on this machine, what is missing and how to get it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs

from mm_config.checks import Check, CheckStatus, all_checks
from mm_config.cli.page import Usage, print_usage
from mm_config.cli.scan import HELP, JSON, RUNS_DIR, scan
from mm_config.cli.targets import runs_dir_of
from mm_config.errors import Problem, UserError
from mm_config.meant import meant
from mm_config.options import RunOptions

USAGE = Usage(
    "mm doctor [--json] [--runs-dir DIR]",
    "Tries what runs rely on: the packages and the versions they need, the runs folder and its index, "
    "locations, torch and its devices, video encoding and decoding. It changes nothing, and takes some "
    "seconds, because libraries are imported and not only looked for.\n\n"
    "`ok` works, `missing` is optional and not there, `broken` is needed and does not work; behind the dash "
    "stands what to do. Exit status: 0 where nothing is broken, 1 otherwise, 2 for a mistake.",
    (JSON, RUNS_DIR),
    (
        ("mm doctor", "after installing, and before reporting a bug"),
        ("mm doctor --runs-dir /data/runs", "about runs in another folder"),
        ("mm doctor --json > doctor.json", "for a bug report"),
    ),
    words="nothing",
)
WIDTH = max(len(status.value) for status in CheckStatus)


def run(argv: Sequence[str]) -> int:
    """Say what works on this machine, what is missing and how to get it."""
    line = scan(argv, USAGE.options)
    if line.has(HELP):
        print_usage(USAGE)
        return 0
    flags = [option.flag for option in (*USAGE.options, HELP)]
    problems = [
        *line.problems,
        *(Problem(given.flag, f"unknown flag{meant(given.flag, flags)}") for given in line.fields),
        *(Problem("", f"unexpected argument {word!r}") for word in line.words),
    ]
    if problems:
        raise UserError(problems)
    checks: list[Check] = []
    for check in all_checks(RunOptions(runs_dir=runs_dir_of(line))):
        checks.append(check)
        if not line.has(JSON):
            print(_line(check), flush=True)
    works = all(check.status is not CheckStatus.BROKEN for check in checks)
    if line.has(JSON):
        found = [{**attrs.asdict(check), "status": check.status.value} for check in checks]
        print(json.dumps({"works": works, "checks": found}, indent=2, ensure_ascii=False))
    return 0 if works else 1


def _line(check: Check) -> str:
    text = f"{check.status.value.ljust(WIDTH)}  {check.name} {check.detail}".rstrip()
    return f"{text} — {check.remedy}" if check.remedy else text
