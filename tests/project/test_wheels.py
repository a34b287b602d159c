"""What is installed from a wheel says who made it, under which licence, and that it is typed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from trove_classifiers import classifiers

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
LICENSE = (ROOT / "LICENSE").read_text("utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive of every package."""
    folder = tmp_path_factory.mktemp("dist")
    for package in PACKAGES:
        command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
        subprocess.run(command, cwd=package, check=True, capture_output=True)
    return folder


def wheel_of(built: Path, package: Path) -> zipfile.ZipFile:
    (path,) = built.glob(f"{package.name}-*.whl")
    return zipfile.ZipFile(path)


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def every(value: Message, name: str) -> Sequence[str]:
    return [str(one) for one in value.get_all(name) or ()]


def test_there_are_five_packages() -> None:
    assert [path.name for path in PACKAGES] == ["mm_config", "mm_data", "mm_infer", "mm_models", "mm_train"]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_wheel_holds_its_licence_and_is_typed(built: Path, package: Path) -> None:
    wheel = wheel_of(built, package)
    (licence,) = (name for name in wheel.namelist() if name.endswith("/licenses/LICENSE"))
    assert wheel.read(licence).decode() == LICENSE
    assert f"{package.name}/py.typed" in wheel.namelist()
    assert all(name.split("/")[0].startswith(package.name) for name in wheel.namelist())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_its_metadata_says_what_it_is(built: Path, package: Path) -> None:
    said = metadata(wheel_of(built, package))
    assert said["Name"] == package.name.replace("_", "-")
    assert said["License-Expression"] == "Apache-2.0"
    assert every(said, "License-File") == ["LICENSE"]
    assert said["Author"] == "The mm authors"
    assert said["Keywords"] and said["Summary"]
    assert str(said.get_payload()).startswith(f"# {said['Name']}\n")
    listed = every(said, "Classifier")
    assert "Typing :: Typed" in listed and set(listed) <= classifiers
    pythons = {one.rsplit(" ", 1)[1] for one in listed if "Python :: 3." in one}
    assert pythons == {"3.11", "3.12", "3.13"} and said["Requires-Python"] == ">=3.11"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_source_archive_holds_the_licence_itself(built: Path, package: Path) -> None:
    (path,) = built.glob(f"{package.name}-*.tar.gz")
    with tarfile.open(path) as archive:
        (member,) = (one for one in archive.getmembers() if one.name.endswith("/LICENSE"))
        content = archive.extractfile(member)
        assert content is not None and content.read().decode() == LICENSE


def test_all_are_of_one_version() -> None:
    files = [ROOT / "pyproject.toml", *(package / "pyproject.toml" for package in PACKAGES)]
    assert len({tomllib.loads(file.read_text())["project"]["version"] for file in files}) == 1
