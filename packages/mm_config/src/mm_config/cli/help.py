"""The --help page of an experiment file: every field of its spec, grouped by section."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from mm_config.cli.flags import as_text, is_settable
from mm_config.cli.page import BLANK, Line, example_lines, flag_line, heading, option_lines, paragraph
from mm_config.cli.scan import Option
from mm_config.cli.sections import Section, sections
from mm_config.cli.values import MARK, brief, mark, marked
from mm_config.rules.carried_out import NotCarriedOut, not_carried_out
from mm_config.schema.decorator import tag_of
from mm_config.schema.evolve import ROOT, Leaf
from mm_config.schema.fields import FieldInfo, field_types
from mm_config.schema.root import RootSpec, aliases_of
from mm_config.schema.types import class_of, describe


def help_lines(spec: RootSpec, file: str, about: str, options: Iterable[Option]) -> list[Line]:
    """The page of an experiment.

    Args:
        spec: Its spec; the values are shown as defaults.
        file: The experiment file, as it was called.
        about: What the experiment is: its docstring.
        options: What can be given beside the spec.
    """
    lines = [*paragraph(f"usage: python {file} [--spec.FIELD VALUE ...] [OPTION ...]", hanging=7)]
    for part in about.strip().split("\n\n"):
        lines.extend([BLANK, *paragraph(" ".join(part.split()))])
    note = (
        "In names, - and _ are the same. A list takes its values one after the other; None is written None."
    )
    lines.extend([BLANK, *paragraph(note)])
    lines.extend(option_lines("options, beside the spec", options))
    aliases = {path: alias for alias, path in aliases_of(type(spec)).items()}
    refused = not_carried_out(spec)
    for section in sections(spec):
        lines.extend(_section_lines(section, mark(section.path, refused.fields)))
        for leaf in section.leaves:
            lines.extend(_leaf_lines(leaf, aliases.get(leaf.path), refused))
    lines.extend(example_lines(_examples(spec, file)))
    return lines


def _section_lines(section: Section, note: str) -> list[Line]:
    tag = tag_of(section.value)
    if section.by_hash:
        about = f"Fields of a {tag} spec; see the --help of its own experiment."
        return [flag_line([f"--{section.path}.*"], ""), *paragraph(f"{section.help} {about}", indent=6)]
    about = " ".join((inspect.getdoc(class_of(section.value)) or "").split("\n\n")[0].split())
    return [BLANK, heading(section.path, section.help, note), *paragraph(f"{tag}: {about}", indent=2)]


def _leaf_lines(leaf: Leaf, alias: str | None, refused: NotCarriedOut) -> list[Line]:
    path = f"{ROOT}.{leaf.path}"
    note, choices = mark(path, refused.fields), refused.choices.get(path, ())
    flags = [f"--spec.{leaf.path}", *([f"--spec.{alias}"] if alias else [])]
    if not is_settable(leaf.type):
        facts = f"{leaf.help} (default: {brief(leaf.value)}; {describe(leaf.type)}, chosen in Python)"
        return [flag_line(flags[:1], "", note), *paragraph(facts, indent=6)]
    if leaf.type is bool:
        section, _, name = flags[0].rpartition(".")
        flags.insert(1, f"{section}.no_{name}")
        spellings = ((flag, flag != flags[1]) for flag in flags)
        flags = [f"{flag} {MARK}" if value in choices else flag for flag, value in spellings]
    return [
        flag_line(flags, "" if leaf.type is bool else marked(as_text(leaf.type).metavar, choices), note),
        *paragraph(f"{leaf.help} ({'; '.join(_facts(leaf.value, leaf.info))})", indent=6),
    ]


def _facts(value: Any, info: FieldInfo) -> list[str]:
    unit = f" {info.unit}" if info.unit else ""
    bounds = ((info.ge, ">="), (info.gt, ">"), (info.le, "<="), (info.lt, "<"))
    limits = [f"{sign}\u00a0{bound}" for bound, sign in bounds if bound is not None]
    if info.min_length is not None:
        limits.append(f"at least {info.min_length} long")
    default = f"default: {brief(value)}{unit if value is not None else ''}"
    return [default, *([f"unit: {info.unit}"] if unit and value is None else []), *limits]


def _examples(spec: RootSpec, file: str) -> Sequence[tuple[str, str]]:
    trains = "optim" in field_types(type(spec))
    changed = "--spec.lr 1e-4 --spec.steps 50" if trains else "--spec.steps 30 --spec.seeds 1 2"
    examples = [
        (f"python {file}", "run it"),
        (f"python {file} {changed}", "run it with some fields changed"),
        (f"python {file} --dry-run", "check and plan it, change nothing"),
        (f"python {file} --if-needed", "run it unless an equal run has finished"),
    ]
    if trains:
        examples += [
            (f"python {file} --resume latest", "continue the latest run"),
            (
                f"torchrun --nproc-per-node 8 --max-restarts 3 {file} --resume auto",
                "eight devices",
            ),
        ]
    return [
        *examples,
        (f"mm plan {file}", "parameters, tokens, FLOPs and memory"),
        (f"mm diff {file} RUN", "what differs from a stored run"),
    ]
