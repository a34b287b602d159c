"""`mm show`: a spec as a page, a file or one line per field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mm_config import files
from mm_config.cli.page import Usage, blank, heading, paragraph, print_lines, print_usage
from mm_config.cli.scan import HELP, RUNS_DIR, Option, scan
from mm_config.cli.sections import sections
from mm_config.cli.targets import TARGET_HELP, read_targets
from mm_config.cli.values import brief, shown
from mm_config.evolve import Leaf, leaves
from mm_config.identity import exact_hash, spec_hash
from mm_config.schema import tag_of
from mm_config.specs.kinds import RootSpec

if TYPE_CHECKING:
    from rich.text import Text

FORMAT = Option(
    "--format",
    "A page to read (default), a file that loads back, or one line per field.",
    choices=("summary", "json", "yaml", "flat"),
    metavar="FORMAT",
)
USAGE = Usage(
    "mm show TARGET [--format FORMAT] [--spec.FIELD VALUE ...] [--runs-dir DIR]",
    f"Shows what a spec says.\n\n{TARGET_HELP}",
    (FORMAT, RUNS_DIR),
    (
        ("mm show experiments/tiny.py", "a page to read"),
        ("mm show experiments/tiny.py --format flat | grep guidance", "find a field and its path"),
        ("mm show 7f3a91c2 --format yaml > spec.yaml", "save a stored run's spec"),
    ),
)


def run(argv: Sequence[str]) -> int:
    """Show what a spec says, as a page, JSON, YAML or one line per field."""
    line = scan(argv, USAGE.options)
    if line.has(HELP):
        print_usage(USAGE)
        return 0
    (spec,) = read_targets(line, USAGE, count=1)
    match line.value(FORMAT):
        case "json" | "yaml" as kind:
            print(files.dumps(spec, kind).rstrip("\n"))
        case "flat":
            print("\n".join(f"spec.{leaf.path} = {shown(leaf.value)}" for leaf in leaves(spec)))
        case _:
            print_lines(summary(spec))
    return 0


def summary(spec: RootSpec) -> list[Text]:
    """The page: ids, then each section's values with their units."""
    lines = [
        heading(spec.name or "(unnamed)", tag_of(spec)),
        *paragraph(f"spec_hash   {spec_hash(spec)[:12]}", indent=2),
        *paragraph(f"exact_hash  {exact_hash(spec)[:12]}", indent=2),
    ]
    for section in sections(spec):
        lines.extend([blank(), heading(section.path, tag_of(section.value))])
        if section.by_hash:
            label = section.value.name or tag_of(section.value)
            lines.extend(paragraph(f"{label}, spec_hash {spec_hash(section.value)[:12]}", indent=2))
        width = max((len(_name(leaf)) for leaf in section.leaves), default=0)
        for leaf in section.leaves:
            unit = f" {leaf.info.unit}" if leaf.info.unit and leaf.value is not None else ""
            text = f"{_name(leaf).ljust(width)}  {brief(leaf.value)}{unit}"
            lines.extend(paragraph(text, indent=2, hanging=width + 2))
    return lines


def _name(leaf: Leaf) -> str:
    return leaf.path.rpartition(".")[2]
