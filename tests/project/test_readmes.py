"""What tells a newcomer what is where names all that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[2] / "packages"
README = (PACKAGES.parent / "README.md").read_text("utf-8")


@pytest.mark.parametrize("package", sorted(folder.name for folder in PACKAGES.iterdir()))
def test_a_readme_names_each_file_and_folder(package: str) -> None:
    rows = re.findall(r"^\|([^|]+)\|", (PACKAGES / package / "README.md").read_text("utf-8"), re.MULTILINE)
    named = {name.partition("/")[0] for row in rows for name in re.findall(r"`([\w/]+?)(?:\.py)?`", row)}
    inside = (path for path in (PACKAGES / package / "src" / package).iterdir() if path.suffix in ("", ".py"))
    assert {path.stem for path in inside if not path.name.startswith("__")} - named == set()


def test_the_picture_of_the_storeys_names_each_package_and_each_folder_of_mm_config() -> None:
    picture = (PACKAGES.parent / "docs/images/storeys.svg").read_text("utf-8")
    named = set(re.findall(r'class="name"[^>]*>(\w+)<', picture))
    folders = {file.parent.name for file in PACKAGES.glob("mm_config/src/mm_config/*/__init__.py")}
    packages = {folder.name for folder in PACKAGES.iterdir()} - {"mm_config"}
    assert named == folders | packages


def test_the_front_page_lists_each_page_once() -> None:
    listed = re.findall(r"\(docs/(\w+\.md)\)", README.partition("\n## Reading\n")[2])
    assert sorted(listed) == sorted(path.name for path in (PACKAGES.parent / "docs").glob("*.md"))
