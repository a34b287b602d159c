"""`scripts/structure.py`: the tree keeps its limits, and what breaks one is named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from scripts import structure

ROOT = Path(__file__).parents[2]


def plant(root: Path, files: dict[str, str]) -> None:
    """A repository whose mm_config holds these files; a folder's `__init__.py` is made with it."""
    for name, text in files.items():
        file = root / "packages/mm_config/src/mm_config" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(text)


def broken(root: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines behind the numbers."""
    status = structure.main(root)
    lines = capsys.readouterr().out.splitlines()
    found = lines[next(index for index, line in enumerate(lines) if line.startswith("longest")) + 1 :]
    assert status == (found != ["every limit is kept"])
    return found


def test_the_tree_keeps_its_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert broken(ROOT, capsys) == ["every limit is kept"]


def test_a_sound_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(
        tmp_path,
        {
            "schema/a.py": "",
            "schema/b.py": "from mm_config.schema import a",
            "specs/c.py": "def late():\n    import mm_config.schema.b\n",
            "cli/d.py": "from mm_config.specs.c import late",
        },
    )
    assert structure.main(tmp_path) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    floors = {line[0]: int(line[1]) for line in printed if line[2:4] == ["floors", "among"]}
    assert {name: count for name, count in floors.items() if count} == {
        "value": 2,
        "people": 1,
        "schema": 2,
        "specs": 1,
        "cli": 1,
    }
    assert ["circles", "0"] in printed and ["upward", "0"] in printed
    assert ["mm_config", "2", "lines"] in printed


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {
                "schema/a.py": "from mm_config.schema.b import x",
                "schema/b.py": "def f():\n    from mm_config.schema import a\n",
            },
            ["circle: mm_config.schema.a -> mm_config.schema.b -> mm_config.schema.a"],
        ),
        (
            {"schema/a.py": "def f():\n    from mm_config.cli.b import x\n", "cli/b.py": ""},
            ["upward: mm_config.schema.a imports mm_config.cli.b"],
        ),
        ({"loose/a.py": ""}, ["mm_config/loose stands in no storey"]),
        (
            {"cli/a.py": "\n" * 301},
            ["packages/mm_config/src/mm_config/cli/a.py has 301 lines, at most 300 are wanted"],
        ),
        (
            {f"rules/a{part}.py": "\n" * 300 for part in range(110)},
            [f"mm_config has 33,000 lines, at most {structure.MOST_LINES:,} are wanted"],
        ),
    ],
)
def test_what_breaks_a_limit_is_named(
    files: dict[str, str], told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, files)
    assert broken(tmp_path, capsys) == told


def test_a_chain_of_folders_that_is_too_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tuple("abcdefg")
    monkeypatch.setattr(structure, "STOREYS", {"value": names})
    plant(tmp_path, {f"{name}/x.py": "" for name in names})
    for lower, upper in pairwise(names[:-1]):
        plant(tmp_path, {f"{upper}/x.py": f"import mm_config.{lower}.x"})
    assert broken(tmp_path, capsys) == ["every limit is kept"]
    plant(tmp_path, {"g/y.py": "import mm_config.f.x"})
    assert broken(tmp_path, capsys) == ["value has 7 floors, at most 6 are wanted"]


@pytest.mark.parametrize("folder", ["runs", "importing"])
def test_a_chain_of_files_that_is_too_long(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    most = structure.MOST_FLOORS
    plant(tmp_path, {f"{folder}/a0.py": ""})
    for above in range(1, most):
        plant(tmp_path, {f"{folder}/a{above}.py": f"import mm_config.{folder}.a{above - 1}"})
    assert broken(tmp_path, capsys) == ["every limit is kept"]
    plant(tmp_path, {f"{folder}/inner/x.py": f"import mm_config.{folder}.a{most - 1}"})
    told = f"the files of {folder} have {most + 1} floors, at most {most} are wanted"
    assert broken(tmp_path, capsys) == [told]
