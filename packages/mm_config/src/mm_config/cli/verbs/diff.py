"""`mm diff`: what differs between two specs and the requests beside them, and what it alters."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mm_config.cli.diff_page import Comparison, compare, diff_lines
from mm_config.cli.line_targets import read_whole_targets
from mm_config.cli.page import page_width, print_page
from mm_config.cli.scan import JSON, RUNS_DIR, CommandLine
from mm_config.cli.targets import TARGET_HELP, Target, runs_dir_of
from mm_config.cli.values import plain
from mm_config.cli.verb import Usage, Verb
from mm_config.console.output import print_json
from mm_config.options.locations import Locations
from mm_config.options.run_options import RunOptions
from mm_config.schema.decorator import tag_of
from mm_config.schema.diff import Change
from mm_config.schema.evolve import ROOT
from mm_config.schema.fields import Effect
from mm_config.schema.identity import exact_hash, spec_hash

if TYPE_CHECKING:
    from mm_config.runs.provenance_diff import OriginChange

USAGE = Usage(
    "mm diff A B [--json] [--spec.FIELD VALUE ...] [--runs-dir DIR]",
    "Print what differs between two specs, grouped by what it can change.",
    "Prints each field that differs between two specs, old value and new, grouped by what it can change, "
    "and whether it alters the mathematics, the weights, the data order or only the execution. "
    "Fields on the command line are put into the second. Of two videos, or runs of mm generate, the requests "
    "that stand beside the specs are compared as well, and of two runs or videos what they were made of.\n\n"
    "Exit status: 0 where the exact ids, requests and content are equal (labels and paths may differ), 1 "
    f"where they differ, 2 for a mistake.\n\n{TARGET_HELP}",
    (JSON, RUNS_DIR),
    (
        ("mm diff experiments/tiny_high.py experiments/tiny_low.py", "two experiments"),
        ("mm diff 7f3a91c2 experiments/tiny_high.py", "what has changed since a stored run"),
        ("mm diff a.mp4 b.mp4", "why two videos are not the same"),
        ("mm diff experiments/tiny.py experiments/tiny.py --spec.steps 30", "what an override changes"),
    ),
    words=("A", "B"),
)


_SHOWN_DIGITS = 12


def print_diff(line: CommandLine) -> int:
    """Prints what differs between the two targets."""
    old, new = read_whole_targets(line)
    content = _content_changes(old, new, RunOptions(runs_dir=runs_dir_of(line), locations=Locations()))
    unread = _unread(old, new) if content is None else ""
    compared = compare(old.spec, new.spec, old.named_requests, new.named_requests, content, unread)
    if line.has(JSON):
        print_json(_report(compared))
    else:
        print_page(diff_lines(compared, _labels(line), page_width()))
    return 0 if compared.equal else 1


def _content_changes(old: Target, new: Target, options: RunOptions) -> tuple[OriginChange, ...] | None:
    """What two runs were made of and is not the same; None where one has no run, or did not record it."""
    folders = [_folder_with_inputs(target) for target in (old, new)]
    if folders[0] is None or folders[1] is None:
        return None
    from mm_config.reproducing.inputs import input_changes

    return tuple(input_changes(folders[0], folders[1], options.contents_dir))


def _unread(old: Target, new: Target) -> str:
    """What both were made of, where it differs and the inputs of one or both are not here; else nothing."""
    was, now = (_made_of(target) for target in (old, new))
    if was is None or now is None or was == now:
        return ""
    gone = [_folder_with_inputs(target) is None for target in (old, new)]
    whose = "both" if all(gone) else "the first" if gone[0] else "the second"
    return f"{was[:_SHOWN_DIGITS]} / {now[:_SHOWN_DIGITS]}; the inputs of {whose} are not here"


def _folder_with_inputs(target: Target) -> Path | None:
    if target.run_dir is None:
        return None
    from mm_config.runs.inputs import INPUTS_FILE

    return target.run_dir if (target.run_dir / INPUTS_FILE).is_file() else None


def _made_of(target: Target) -> str | None:
    """What a video or a run was made of; None where that is not recorded."""
    if target.mark is not None or target.run_dir is None:
        return target.mark.made_of if target.mark is not None else None
    from mm_config.runs.record import STATUS_FILE
    from mm_config.stored.json_files import read_json

    file = target.run_dir / STATUS_FILE
    return read_json(file).get("made_of") if file.is_file() else None


def _labels(line: CommandLine) -> tuple[str, str]:
    """The targets as they were typed; the fields were put into the second."""
    first, second = line.words
    fields = [word for one in line.fields for word in (one.flag, *one.words)]
    return first, shlex.join([second, *fields]) if fields else second


def _report(compared: Comparison) -> dict[str, Any]:
    sides = (compared.old, compared.new)
    return {
        "equal": compared.equal,
        "kind": [tag_of(spec) for spec in sides],
        "spec_hash": [spec_hash(spec) for spec in sides],
        "exact_hash": [exact_hash(spec) for spec in sides],
        "changes": [_as_json(change, effect) for change, effect in compared.changes],
        "requests": [
            {
                "path": change.path,
                "role": change.role.value,
                "old": plain(change.old),
                "new": plain(change.new),
            }
            for change in compared.requests
        ],
        "unread": compared.unread or None,
        "content": None if compared.content is None else [attrs.asdict(one) for one in compared.content],
        "only_in": [list(compared.only_old), list(compared.only_new)],
    }


def _as_json(change: Change, effect: Effect) -> dict[str, Any]:
    # Of roots of different kinds the kinds are the change; their fields follow.
    written = tag_of if change.path == ROOT else plain
    return {
        "path": change.path,
        "role": change.role.value,
        "old": written(change.old),
        "new": written(change.new),
        "unit": change.unit,
        "effect": effect.value,
        "by_hash": change.by_hash,
    }


VERB = Verb(USAGE, print_diff)
