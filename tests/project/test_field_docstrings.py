"""Every field of a value that packages hand about says what it is, and `help` of a public class shows it."""

import ast
import builtins
import inspect
import pickle
import pydoc
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import pytest

import mm_config
from mm_config.schema.docstrings import help_texts
from mm_infer import GenerationRequest

ROOT = Path(__file__).parents[2]
VALUE = '@attrs.frozen\nclass Batch:\n    """A batch."""\n\n    step: int\n    """From 0."""\n'


def undocumented(source: str) -> Iterator[str]:
    """Fields of attrs classes without a docstring below them, as `Class.field`."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef) or "attrs" not in map(_first_name, node.decorator_list):
            continue
        following = [*node.body[1:], ast.Pass()]
        for field, after in zip(node.body, following, strict=True):
            if isinstance(field, ast.AnnAssign) and not (
                isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            ):
                yield f"{node.name}.{ast.unparse(field.target)}"


def _first_name(decorator: ast.expr) -> str:
    return ast.unparse(decorator).partition(".")[0]


PACKAGES = ("mm_config", "mm_data", "mm_infer", "mm_models", "mm_train")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_field_of_a_value_says_what_it_is(package: str) -> None:
    files = sorted((ROOT / "packages" / package / "src").rglob("*.py"))
    assert files
    assert [(file.name, field) for file in files for field in undocumented(file.read_text())] == []


def test_a_field_without_a_docstring_is_found() -> None:
    assert list(undocumented(VALUE)) == []
    longer = VALUE.replace("frozen", "frozen(eq=False)") + "    last: bool\n"
    assert list(undocumented(longer)) == ["Batch.last"]
    assert list(undocumented(VALUE.replace('    """From 0."""\n', "    last: bool\n"))) == [
        "Batch.step",
        "Batch.last",
    ]
    assert list(undocumented("class Batch:\n    step: int\n")) == []


def public(package: str) -> Iterator[tuple[str, Any]]:
    """What the face of a package names."""
    face = import_module(package)
    yield from ((f"{package}.{name}", getattr(face, name)) for name in face.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_help_of_a_public_class_shows_what_its_fields_are(package: str) -> None:
    for name, value in public(package):
        if isinstance(value, type) and attrs.has(value):
            page = " ".join(pydoc.plain(pydoc.render_doc(value)).replace("|", " ").split())
            texts = {field.name: help_texts(value).get(field.name) for field in attrs.fields(value)}
            assert texts, name
            for field, text in texts.items():
                assert text and f" {field} {text} " in page, f"{name}.{field}"


def test_a_class_that_help_knows_is_copied_and_extended_as_before() -> None:
    @attrs.frozen
    class Longer(GenerationRequest):
        more: int = 0

    request = GenerationRequest(prompt="a circle", seed=3)
    assert pickle.loads(pickle.dumps(request)) == request
    assert Longer(prompt="a circle", more=2).more == 2
    assert not hasattr(Longer(prompt="a circle"), "__dict__")


@pytest.mark.parametrize("package", PACKAGES)
def test_errors_that_public_docstrings_name_are_on_a_face(package: str) -> None:
    for name, value in public(package):
        members = vars(value).values() if isinstance(value, type) else ()
        for one in (value, *filter(inspect.isfunction, members)):
            _, _, raises = (inspect.getdoc(one) or "").partition("Raises:")
            for error in re.findall(r"^    ([A-Z][\w, ]*):", raises, re.MULTILINE):
                for kind in error.split(", "):
                    homes = (builtins, mm_config, import_module(package))
                    assert any(hasattr(home, kind) for home in homes), f"{name}: {kind}"
