"""Every field of a value that packages hand about says what it is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("package", ["mm_data", "mm_models", "mm_train"])
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
