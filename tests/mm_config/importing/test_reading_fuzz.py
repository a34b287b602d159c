"""Damaged files: each is read or refused with its file and line, and nothing else ever happens."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_config.importing.nodes import Node, leaves, plain
from mm_config.importing.parsers.json_text import read_json
from mm_config.importing.parsers.script import Script
from mm_config.importing.parsers.shell_text import read_shell
from mm_config.importing.parsers.yaml_text import read_yaml
from mm_config.schema.errors import UserError

DATA = Path(__file__).parent / "data"
READERS: dict[str, Callable[[Path], Node | Script]] = {
    ".json": read_json,
    ".yaml": read_yaml,
    ".sh": read_shell,
}
SNIPPETS = (
    *"{}[]()\"'`$\\,:;|&<>#=-*?~!@%^/\n\r\t \0é\u2028\ufeff",
    *(
        "//",
        "/*",
        "*/",
        "$(",
        "$((",
        "${",
        "))",
        ":-",
        "\\\n",
        "\r\n",
        "<<",
        "&&",
        "||",
        "2>&1",
        "...",
        "---",
    ),
    *("NaN", "-", "1e999", "0x1", "{480, 832}", "true", "null", "&a", "*a", "!!x ", "- ", ": ", "\\ud800"),
    *(
        "eval ",
        "torchrun ",
        "export ",
        "source ",
        "if ",
        "A=",
        "A+=",
        "$A",
        "$GPT_ARGS",
        "${A:-",
        "$(rm -rf x)",
    ),
    *("9" * 25, "[" * 90, "{" * 90, '{"a":' * 90, "$(" * 90, "${A:-" * 90, "((" * 90, "  " * 90),
)


def mutated(rng: random.Random, data: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 10, 200)))
        snippet = rng.choice(SNIPPETS).encode()
        data = rng.choice(
            (
                data[:at] + snippet + data[at:],
                data[:at] + snippet + data[end:],
                data[:at] + data[end:],
                data[:at] + data[at:end] * 2 + data[end:],
                data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
                data[:at],
            )
        )
    return data


@pytest.mark.parametrize(
    ("seed", "cases"),
    [(0, 2_000), *(pytest.param(seed, 2_000, marks=pytest.mark.slow) for seed in range(1, 5))],
)
def test_a_damaged_file_is_read_or_refused_with_its_line(seed: int, cases: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    originals = [(path, path.read_bytes()) for path in sorted(DATA.glob("seed_*"))]
    refused = 0
    for case in range(cases):
        original, data = originals[case % len(originals)]
        file = tmp_path / f"damaged{original.suffix}"
        file.write_bytes(mutated(rng, data))
        try:
            found = READERS[original.suffix](file)
        except UserError as error:
            refused += 1
            check_refusal(error, file)
        else:
            check_reading(found, file)
    assert cases / 4 < refused < cases
    assert {path.name for path in tmp_path.iterdir()} == {"damaged.json", "damaged.yaml", "damaged.sh"}


def check_refusal(error: UserError, file: Path) -> None:
    lines = file.read_bytes().count(b"\n") + 1
    assert 1 <= len(error.problems) <= 21
    for problem in error.problems:
        match = re.fullmatch(rf"{re.escape(str(file))}:(\d+)", problem.path)
        assert match and 1 <= int(match[1]) <= lines, (problem, file.read_bytes())
        assert problem.message and problem.message.isprintable(), (problem, file.read_bytes())


def check_reading(found: Node | Script, file: Path) -> None:
    lines = file.read_bytes().count(b"\n") + 1
    if isinstance(found, Node):
        assert plain(found) is None or list(leaves(found))
        assert all(1 <= line <= lines for _, _, line in leaves(found))
    else:
        facts = (*found.assignments, *found.exports, *found.launch)
        assert all(1 <= fact.line <= lines for fact in facts)
        assert all(1 <= note.line <= lines and note.text.isprintable() for note in found.notes)
