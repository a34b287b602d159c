"""A package declares every distribution that it imports; mm_config declares no other."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

PACKAGES = Path(__file__).parents[2] / "packages"


def imported(package: str) -> set[str]:
    """The distributions of all imports in a package's source, also those inside functions."""
    modules: set[str] = set()
    for file in (PACKAGES / package / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
    distributions = packages_distributions()
    foreign = modules - sys.stdlib_module_names - {package}
    return {distributions.get(module, [module])[0].lower().replace("_", "-") for module in foreign}


def declared(package: str) -> tuple[set[str], set[str]]:
    """The names that a package requires, and those that its extras add, by those of its siblings too."""
    project = project_of(package)
    extras = [name for names in project.get("optional-dependencies", {}).values() for name in names]
    for sibling, extra in re.findall(r"(mm-\w+)\[(\w+)\]", " ".join(extras)):
        extras += project_of(sibling.replace("-", "_"))["optional-dependencies"][extra]
    required, optional = (
        {re.split(r"[^\w-]", name)[0].lower() for name in names}
        for names in (project["dependencies"], extras)
    )
    return required, optional


def project_of(package: str) -> dict[str, Any]:
    return tomllib.loads((PACKAGES / package / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.mark.parametrize("package", sorted(path.name for path in PACKAGES.iterdir() if path.is_dir()))
def test_what_is_imported_is_declared(package: str) -> None:
    required, optional = declared(package)
    assert imported(package) - optional <= required


def test_mm_config_declares_nothing_that_it_does_not_import() -> None:
    required, optional = declared("mm_config")
    assert required == imported("mm_config") - optional
