"""Random legal configurations import, and say what their files said; random damage is told in lines."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

from mm_config.importing.facts import Fact, Source, facts_of, generic
from mm_config.importing.mindspeed.dialects import is_script, is_yaml, kind_of
from mm_config.importing.mindspeed.importer import import_files
from mm_config.importing.mindspeed.table import TABLE
from mm_config.importing.nodes import number_of
from mm_config.importing.parsers.json_text import read_json
from mm_config.importing.parsers.shell_text import read_shell
from mm_config.importing.parsers.yaml_text import read_yaml
from mm_config.importing.report import Entry, Report
from mm_config.importing.verdict import Verdict
from mm_config.schema.errors import UserError
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec
from tests.mm_config.importing import mindspeed_back
from tests.mm_config.importing.mindspeed_cases import write_case, write_inference

WORDS = {
    "wan2.2-t2v": "t2v",
    "fp32": "float32",
    "AvVideo": "TorchvisionVideo",
    "BaseRandomBatchSampler": "LengthGroupedSampler",
    "fused_adamw": "fused_torch_adamw",
}
"""Words of the files that mean the same."""


def normal(value: Any) -> Any:
    """Values that mean the same, as one."""
    if isinstance(value, str):
        value = number_of(value)
    if isinstance(value, (list, tuple)):
        return tuple(map(normal, value))
    return WORDS.get(value, value) if isinstance(value, str) else value


def equal(ours: Any, theirs: Any) -> bool:
    ours, theirs = normal(ours), normal(theirs)
    if isinstance(ours, tuple) and isinstance(theirs, str):
        theirs = tuple(map(normal, theirs.split(",")))
    if isinstance(ours, (int, float)) and isinstance(theirs, (int, float)):
        return math.isclose(ours, theirs, rel_tol=1e-12)
    return ours == theirs


def written_back(files: list[Path], spec: TrainSpec | InferSpec, report: Report) -> list[tuple[Entry, Any]]:
    """The mapped keys whose value, made of the spec, is not the file's."""
    values = mindspeed_back.values(spec)
    rows = {
        (fact.place, fact.path): row
        for fact in facts_read(files)
        if (row := TABLE.row_of(fact.source.kind, generic(fact.path)))
    }
    found: list[tuple[Entry, Any]] = []
    for entry in report.of(Verdict.MAPPED):
        if entry.text.startswith(("--", "start_from", "high_noise", "low_noise")):
            continue
        value: Any = values.get(
            (rows[entry.place, entry.key].kind, rows[entry.place, entry.key].path), "nothing"
        )
        # null is 1 rank to MindSpeed-MM, although its documentation says all.
        theirs = 1 if entry.key == "sharding_size" and entry.value is None else entry.value
        # The family's boundary is taken where it is within 1e-3 of the file's: a point may change sides.
        if entry.key.endswith("timestep_boundary") and "within" in entry.text:
            assert abs(value - theirs) < 3e-3
        elif not equal(value, theirs):
            found.append((entry, value))
    return found


def check_case(folder: Path, number: int) -> int:
    """Imports a case and holds the spec against its files; the number of mapped keys."""
    files, _ = write_case(folder, number)
    spec, report = import_files(files)
    assert not report.of(Verdict.UNKNOWN) and not report.of(Verdict.REFUSED)
    assert written_back(files, spec, report) == [], f"case {number}"
    for file in files:
        file.unlink()
    return len(report.of(Verdict.MAPPED))


def test_random_configurations_are_imported_as_they_say(tmp_path: Path) -> None:
    mapped = [check_case(tmp_path, number) for number in range(200)]
    assert min(mapped) > 10 and max(mapped) > 80


def test_random_inference_files_are_imported_as_they_say(tmp_path: Path) -> None:
    for number in range(50):
        files = write_inference(tmp_path, number)
        spec, report = import_files(files)
        assert isinstance(spec, InferSpec)
        assert not report.of(Verdict.UNKNOWN) and len(report.of(Verdict.MAPPED)) > 10
        assert written_back(files, spec, report) == [], f"case {number}"


@pytest.mark.slow
def test_two_thousand_random_configurations_are_imported_as_they_say(tmp_path: Path) -> None:
    for number in range(200, 2200):
        check_case(tmp_path, number)


DATA = Path(__file__).parent / "data"
RUNS = (
    ("seed_model.json", "data.json", "fsdp2_config.yaml", "tools.json", "seed_pretrain_high.sh"),
    ("seed_custom_model.json", "seed_custom_data.json", "seed_custom_fsdp2.yaml", "seed_custom_pretrain.sh"),
    ("inference_model.json", "seed_inference.sh"),
    ("native.yaml",),
)
VALUES = (
    *("null", "true", "-1", "0", "1e400", "1e-400", "9" * 400, "[]", "{}", '""', '"x"', "[1, 2]", '"1e999"'),
    *(
        "[[]]",
        '{"a": 1}',
        "NaN",
        "'",
        '"',
        "$A",
        "$(rm x)",
        "`ls`",
        "\u00e9",
        "1.5",
        "-0.0",
        "[null]",
        "\\",
        "\0",
    ),
)


def damaged(text: str, draw: random.Random) -> str:
    """The text with some damage: values replaced, characters and lines lost, doubled or moved."""
    for _ in range(draw.randint(1, 3)):
        kind, lines = draw.randrange(6), text.split("\n")
        at, line = draw.randrange(len(text) or 1), draw.randrange(len(lines))
        if kind < 3:
            values = list(re.finditer(r'(?<=[:=\s])("[^"\n]*"|[-\w./${}]+)', text))
            if values:
                found = draw.choice(values)
                text = text[: found.start()] + draw.choice(VALUES) + text[found.end() :]
        elif kind == 3:
            text = text[:at] + text[at + draw.randint(1, 9) :]
        elif kind == 4:
            text = "\n".join([*lines[:line], *([lines[line]] * draw.choice((0, 2))), *lines[line + 1 :]])
        else:
            text = text[:at] + draw.choice("{}[],:\"'$#-\t\n\\%é") + text[at:]
    return text


def facts_read(files: list[Path]) -> list[Fact]:
    """What the files say; nothing where one of them can't be read, so that keys need not be known."""
    found: list[Fact] = []
    try:
        for file in files:
            if is_script(file):
                script = read_shell(file)
                found += [*script.exports, *script.assignments, *script.launch]
                continue
            node = read_yaml(file) if is_yaml(file) else read_json(file)
            found += facts_of(node, Source(file, kind_of(file, node, TABLE)))
    except UserError:
        return []
    return found


def check_damage(folder: Path, number: int) -> bool:
    """Imports a damaged run; whether it was refused.

    Each line of a refusal names a file and a line and, where the files can be read, a key of that line.
    """
    draw = random.Random(number)
    run = draw.choice(RUNS)
    victim = draw.choice(run)
    files: list[Path] = []
    for name in run:
        text = (DATA / name).read_text("utf-8")
        file = folder / name
        file.write_text(damaged(text, draw) if name == victim else text, "utf-8")
        files.append(file)
    try:
        spec, _ = import_files(files)
    except UserError as error:
        facts = facts_read(files)
        for problem in error.problems:
            if facts:
                here = [fact.path for fact in facts if fact.place == problem.path]
                program = "is no program of Wan's" in problem.message
                assert program or any(path in problem.message for path in here), (number, problem)
            assert re.match(rf"{re.escape(str(folder))}/\S+\.(json|yaml|sh):\d+$", problem.path), problem
            assert problem.message and "\n" not in str(problem), problem
        return True
    assert isinstance(spec, (TrainSpec, InferSpec))
    return False


def test_damaged_files_are_refused_with_their_file_line_and_key(tmp_path: Path) -> None:
    refused = [check_damage(tmp_path, number) for number in range(400)]
    assert 0.2 < sum(refused) / len(refused) < 0.95


@pytest.mark.slow
def test_ten_thousand_damaged_files_are_refused_with_their_file_line_and_key(tmp_path: Path) -> None:
    for number in range(400, 10_400):
        check_damage(tmp_path, number)
