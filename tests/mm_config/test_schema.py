"""Specs refuse, at construction, what their fields do not allow."""

from typing import Any

import attrs
import pytest

from mm_config.schema import decorator
from mm_config.schema.decorator import registered_specs, spec
from mm_config.schema.docstrings import help_texts
from mm_config.schema.errors import SpecError
from mm_config.schema.fields import (
    ABSENT,
    EXECUTION,
    LOCATION,
    SEMANTIC,
    field,
    field_types,
    info_of,
    narrowed,
    spec_fields,
)
from mm_config.schema.ranges import value_problems
from mm_config.specs.data import DataSpec
from mm_config.specs.datasets import ManifestSpec, ShapesSpec
from mm_config.specs.encoders import DctAutoencoderSpec
from mm_config.specs.kinds import DatasetSpec
from mm_config.specs.optim import AdamWSpec, ScheduleSpec
from mm_config.stored.structuring import known_specs


def refusals(cls: type[Any], **fields: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        cls(**fields)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_all_problems_of_a_spec_come_at_once() -> None:
    found = refusals(AdamWSpec, lr="fast", betas=(0.9, 1.5), eps=float("nan"), weight_decay=-1)
    assert found == {
        "lr": "expected float, got str 'fast'",
        "betas.1": "must be < 1, got 1.5",
        "eps": "must be a finite number, got nan",
        "weight_decay": "must be >= 0, got -1",
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "expected int, got bool True"),
        (5.0, "expected int, got float 5.0"),
        ("5", "expected int, got str '5'"),
        (None, "expected int, got None"),
        (0, "must be >= 1, got 0"),
        (10**30, "must fit into 64 bits, got int 1000000000000000000000000000000"),
    ],
)
def test_integers_are_integers(value: Any, message: str) -> None:
    assert refusals(ScheduleSpec, steps=value) == {"steps": message}


@pytest.mark.parametrize("value", [2**53 + 1, 10**400])
def test_an_integer_that_a_float_cannot_hold_is_no_float(value: int) -> None:
    assert refusals(AdamWSpec, lr=value)["lr"].startswith("expected float, got int ")


def test_tuples_have_the_declared_length_and_are_no_lists() -> None:
    expected = "expected tuple of 2 (float, float), got "
    assert refusals(AdamWSpec, betas=(0.9,)) == {"betas": expected + "tuple (0.9,)"}
    assert refusals(AdamWSpec, betas=[0.9, 0.95]) == {"betas": expected + "list [0.9, 0.95]"}


def test_text_must_be_unicode_and_not_empty_where_a_length_is_asked_for() -> None:
    assert refusals(ManifestSpec, name="") == {"name": "must not be empty"}
    assert "lone surrogate" in refusals(ManifestSpec, name="\ud800")["name"]


def test_a_field_of_a_kind_takes_any_spec_of_that_kind_and_nothing_else() -> None:
    class Impostor(DatasetSpec):
        """Not a spec."""

    assert DataSpec(dataset=ShapesSpec(), batch_size=1).dataset == ShapesSpec()
    assert DataSpec(dataset=ManifestSpec(name="x"), batch_size=1).dataset == ManifestSpec(name="x")
    for wrong in (DctAutoencoderSpec(), Impostor(), DatasetSpec(), ShapesSpec, {}):
        assert refusals(DataSpec, dataset=wrong, batch_size=1)["dataset"].startswith("expected DatasetSpec")


def test_numbers_and_texts_are_checked_at_any_depth_of_tuples() -> None:
    @spec("test-nested-tuples")
    class Nested:
        """Tuples of tuples."""

        sizes: tuple[tuple[int, float], ...] = field(default=(), ge=1)
        """Pairs of numbers."""
        names: tuple[tuple[str, ...], ...] = ()
        """Lists of names."""

    assert Nested(sizes=((1, 1.0),), names=(("a",), ())).sizes == ((1, 1.0),)
    assert refusals(Nested, sizes=((1, 2.0), (0, float("nan"))), names=(("\ud800",),)) == {
        "sizes.1.0": "must be >= 1, got 0",
        "sizes.1.1": "must be a finite number, got nan",
        "names.0.0": "holds a lone surrogate, which is no Unicode text: str '\\ud800'",
    }


def test_a_length_is_not_asked_of_none() -> None:
    @spec("test-optional-name")
    class Optional:
        """A name that may be missing."""

        name: str | None = field(default=None, min_length=1)
        """The name."""

    assert Optional().name is None
    assert refusals(Optional, name="") == {"name": "must not be empty"}


def test_specs_are_frozen_and_hashable() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        AdamWSpec().lr = 1.0  # type: ignore[misc]
    assert hash(AdamWSpec(lr=1.0)) == hash(AdamWSpec(lr=1.0))


def test_a_tag_belongs_to_one_class_which_may_be_imported_again() -> None:
    def define() -> type[Any]:
        @spec("test-tag")
        class First:
            """The owner of the tag."""

        return First

    define()
    again = define()
    assert registered_specs()["test-tag"] is again
    with pytest.raises(TypeError, match=r"'test-tag' is taken by .*First"):

        @spec("test-tag")
        class Second:
            """Another class."""


def test_classes_that_break_the_rules_of_specs_are_refused() -> None:
    with pytest.raises(TypeError, match="docstring"):

        @spec("test-undocumented")
        class Undocumented: ...

    with pytest.raises(TypeError, match="nothing is derived"):

        @spec("test-derived")
        class Derived:
            """Fills a field after construction."""

            def __attrs_post_init__(self) -> None: ...

    for migrate in ({}, {"migrate": lambda self, payload, schema: payload}):
        with pytest.raises(TypeError, match="schema 2 needs a `migrate` static method"):
            spec("test-unmigrated", schema=2)(type("Unmigrated", (), {"__doc__": "Changed.", **migrate}))

    for wires in ({"first": "x", "second": "x"}, {"first": "second"}, {"first": "~"}):
        namespace = {"__doc__": "Two fields.", "__annotations__": {"first": int, "second": int}}
        declared = {name: field(default=0, wire=wires.get(name)) for name in ("first", "second")}
        with pytest.raises(TypeError, match="can't be the name of two fields or start with ~"):
            spec("test-two-names")(type("TwoNames", (), {**namespace, **declared}))

    @spec("test-dict")
    class Mutable:
        """Holds a dict."""

        table: dict[str, int] = field()
        """Not allowed."""

    with pytest.raises(TypeError, match=r"Mutable.table: a spec holds None"):
        field_types(Mutable)
    # Other tests read specs by any known tag.
    del decorator._REGISTRY["test-dict"]


def test_the_role_in_force_is_the_one_that_enters_fewer_hashes() -> None:
    assert narrowed(SEMANTIC, EXECUTION) is EXECUTION
    assert narrowed(EXECUTION, SEMANTIC) is EXECUTION
    assert narrowed(EXECUTION, LOCATION) is LOCATION


def test_every_field_of_every_spec_has_a_help_text() -> None:
    for tag, cls in known_specs().items():
        if cls.__module__.startswith("mm_config."):
            documented = help_texts(cls)
            assert [a.name for a in spec_fields(cls) if not documented.get(a.name)] == [], tag


def test_the_neutral_value_of_every_field_is_one_that_the_field_allows() -> None:
    for tag, cls in known_specs().items():
        for attribute in spec_fields(cls):
            if (neutral := info_of(attribute).neutral) is not ABSENT:
                found = value_problems(neutral, field_types(cls)[attribute.name], attribute)
                assert list(found) == [], f"{tag}.{attribute.name}"


def test_help_texts_are_inherited_and_on_one_line() -> None:
    @spec("test-base")
    class Base:
        """Has one field."""

        steps: int = 1
        """Optimizer
        steps."""

    @spec("test-child")
    class Child(Base):
        """Has one more."""

        rate: float = 1.0
        """Learning rate."""

    assert help_texts(Child) == {"steps": "Optimizer steps.", "rate": "Learning rate."}
