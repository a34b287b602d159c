"""`mm doctor`: what works on this machine, what is missing and how to get it."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from mm_config.cli.line_targets import read_targets
from mm_config.cli.scan import JSON, RUNS_DIR, CommandLine, Option
from mm_config.cli.targets import runs_dir_of
from mm_config.cli.verb import Usage, Verb
from mm_config.console.output import print_json, print_lines
from mm_config.doctor.checks import Check, CheckStatus, DoctorOptions, all_checks
from mm_config.doctor.npu import npu_checks
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.root import RootSpec

DEVICE = Option(
    "--device",
    "The device that has to work; without it, whichever is there. npu also looks at CANN, at the versions "
    "that go together and at the environment.",
    "NAME",
    choices=("auto", "cpu", "cuda", "npu"),
)
USAGE = Usage(
    "mm doctor [--device NAME] [--json] [--runs-dir DIR], or mm doctor --device npu TARGET "
    "[--spec.FIELD VALUE ...]",
    "Say what works on this machine, what is missing and how to get it.",
    "Tries what runs rely on: the packages and the versions they need, the runs folder and its index, "
    "locations, torch and its devices, video encoding and decoding. It changes nothing, and takes some "
    "seconds, because libraries are imported and not only looked for.\n\n"
    "With --device npu, every environment variable that an Ascend NPU's libraries read is held against its "
    "range and against the others, beside what MindSpeed-MM's scripts set. With a target too, so are the "
    "variables that the run of it would export.\n\n"
    "`ok` works, `missing` is optional and not there, `warning` works but not as it should, `broken` is "
    "needed and does not work; behind the dash stands what to do. Exit status: 0 where nothing is broken, "
    "1 otherwise, 2 for a mistake.",
    (DEVICE, JSON, RUNS_DIR),
    (
        ("mm doctor", "after installing, and before reporting a bug"),
        ("mm doctor --device npu", "before the first run on an Ascend NPU"),
        ("mm doctor --device npu experiments/wan22_high.py", "and what this run would export there"),
        ("mm doctor --runs-dir /data/runs", "about runs in another folder"),
        ("mm doctor --json > doctor.json", "for a bug report"),
    ),
    words=("[TARGET]",),
)
WIDTH = max(len(status.value) for status in CheckStatus)


def examine(line: CommandLine) -> int:
    """Prints what each check finds."""
    device = line.value(DEVICE, DEVICE.choices[0])
    spec = _target(line, device)
    checks: list[Check] = []
    for check in _all(DoctorOptions(runs_dir=runs_dir_of(line), device=device), spec):
        checks.append(check)
        if not line.has(JSON):
            print_lines([_line(check)])
    works = all(check.status is not CheckStatus.BROKEN for check in checks)
    if line.has(JSON):
        found = [{**attrs.asdict(check), "status": check.status.value} for check in checks]
        print_json({"works": works, "checks": found})
    return 0 if works else 1


def _target(line: CommandLine, device: str) -> RootSpec | None:
    """The run that is meant, if one is named.

    Raises:
        UserError: All that is wrong with the command line and the target.
    """
    if line.words and device == "npu":
        return read_targets(line)[0]
    problems = [
        *line.problems,
        *line.unknown_flags(),
        *(Problem("", f"unexpected argument {word!r}; --device npu takes a target") for word in line.words),
    ]
    if problems:
        raise UserError(problems)
    return None


def _all(options: DoctorOptions, spec: RootSpec | None) -> Iterator[Check]:
    # Before the packages' checks import torch: torch_npu, imported with it, changes the environment.
    if options.device == "npu":
        yield from npu_checks(spec)
    yield from all_checks(options)


def _line(check: Check) -> str:
    text = f"{check.status.value.ljust(WIDTH)}  {check.name} {check.detail}".rstrip()
    return f"{text} — {check.remedy}" if check.remedy else text


VERB = Verb(USAGE, examine)
