"""A field says everything about itself: a new one is found everywhere, an incomplete one is refused."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from mm_config import diff, replace
from mm_config.cli.diff_page import compare
from mm_config.cli.help import help_lines
from mm_config.cli.page import unstyled
from mm_config.cli.parse import overridden
from mm_config.cli.scan import Given
from mm_config.cli.summary import summary_lines
from mm_config.schema.decorator import spec
from mm_config.schema.fields import EXECUTION, LOCATION, SEMANTIC, Effect, Group, Layer, field
from mm_config.schema.root import RootSpec, aliases_of
from mm_config.specs.diffusion import SamplerSpec
from mm_config.specs.kinds import OptimizerSpec
from mm_config.specs.optim import AdamWSpec
from mm_config.stored.layers import layer_hashes


@spec("declared-root", layer=Layer.TRAINING)
class Declared(RootSpec):
    """A run with a new field."""

    name: str = field(default="", role=LOCATION)
    """Label."""
    novelty: int = field(
        default=1,
        role=SEMANTIC,
        unit="pixels",
        effect=Effect.DATA_ORDER,
        layer=Layer.MODEL,
        group=Group.NOISE,
        short_name="new",
    )
    """The new field."""
    sampler: SamplerSpec = field(
        default=SamplerSpec(),
        effect=Effect.MATHEMATICS,
        effects={"shift": Effect.WEIGHTS},
        group=Group.SAMPLING,
        short_names=("steps",),
    )
    """A part with fields of its own."""


BASE = Declared(name="x")


def test_a_new_field_is_in_the_help_with_its_alias() -> None:
    page = "\n".join(map(unstyled, help_lines(BASE, "x.py", "", ())))
    assert "--spec.novelty, --spec.new INT\n      The new field. (default: 1 pixels)" in page
    assert "--spec.sampler.steps, --spec.steps INT" in page


def test_a_new_field_is_set_by_its_alias() -> None:
    changed = overridden(BASE, [Given("--spec.new", ("4",)), Given("--spec.steps", ("7",))])
    assert changed == Declared(name="x", novelty=4, sampler=SamplerSpec(steps=7))


def test_a_diff_says_what_a_new_field_alters() -> None:
    changes = {"novelty": 4, "sampler.shift": 2.0, "sampler.steps": 7}
    compared = compare(BASE, replace(BASE, changes))
    effects = {change.path: effect for change, effect in compared.changes}
    assert effects == {
        "spec.novelty": Effect.DATA_ORDER,
        "spec.sampler.shift": Effect.WEIGHTS,
        "spec.sampler.steps": Effect.MATHEMATICS,
    }
    assert diff(BASE, BASE) == ()


def test_the_page_has_a_new_field_in_its_group() -> None:
    changed = replace(BASE, {"novelty": 4, "sampler.steps": 7})
    lines = ["".join(text for text, _ in line) for line in summary_lines(changed, 80)]
    assert lines[lines.index("Noise and loss") + 1] == "  novelty        4 pixels"
    assert lines[lines.index("Sampling") + 1] == "  sampler.steps  7"


def test_a_new_field_is_in_the_hash_of_its_layer() -> None:
    written = b'{"kind":"declared-root","layer":"model","spec":{"novelty":4},"v":1}'
    before, after = layer_hashes(BASE), layer_hashes(replace(BASE, "novelty", 4))
    assert list(after) == ["model", "training"]
    assert after["model"] == hashlib.sha256(written).hexdigest()
    assert after["training"] == before["training"]


@spec("declared-heir")
class Heir(Declared):
    """Another package's run, which says nothing of its own fields."""

    extra: int = 1
    """Its field."""


def test_a_class_that_adds_a_silent_field_keeps_what_its_base_says() -> None:
    changed = replace(Heir(), {"novelty": 4, "extra": 2})
    assert [effect for _, effect in compare(Heir(), changed).changes] == [Effect.DATA_ORDER, Effect.RESULT]
    before, after = layer_hashes(replace(Heir(), "novelty", 4)), layer_hashes(changed)
    assert before["model"] == after["model"]
    assert before["training"] != after["training"]
    lines = ["".join(text for text, _ in line) for line in summary_lines(changed, 80)]
    assert lines[lines.index("Others") + 1].split() == ["extra", "2"]


def refused(layer: Layer | None = None, **fields: Any) -> str:
    """Why a class with some fields can't be made."""
    body = {"__doc__": "A run.", "__annotations__": {}, "__qualname__": "Refused", "__module__": __name__}
    for name, (kind, declared) in fields.items():
        body["__annotations__"][name] = kind
        body[name] = declared
    with pytest.raises(TypeError) as caught:
        spec("refused-root", layer=layer)(type("Refused", (), body))
    return str(caught.value)


def test_a_field_that_says_less_than_the_others_is_refused() -> None:
    full = field(default=1, effect=Effect.WEIGHTS, group=Group.WEIGHTS)
    bare = (int, field(default=1))
    assert refused(a=(int, full), b=bare) == "Refused.b: says no effect, other fields do"
    assert (
        refused(a=(int, field(default=1, group=Group.DATA)), b=bare)
        == "Refused.b: says no group, other fields do"
    )
    layered = (int, field(default=1, layer=Layer.MODEL))
    assert refused(a=layered, b=bare) == "Refused.b: says no layer, other fields do"


def test_a_role_that_says_the_effect_leaves_nothing_to_say() -> None:
    said = field(default=1, role=EXECUTION, effect=Effect.MATHEMATICS)
    assert refused(a=(int, said)) == "Refused.a: its role, execution, says its effect and its group"


def test_an_alias_stands_for_one_field_that_exists() -> None:
    other = (int, field(default=1))
    shadowing = "Refused.a: the alias 'b' is the name of another field or alias"
    assert refused(a=(int, field(default=1, short_name="b")), b=other) == shadowing
    steps = (SamplerSpec, field(default=SamplerSpec(), short_names=("steps",)))
    assert refused(a=steps, b=steps) == "Refused.b: the alias 'steps' is the name of another field or alias"
    misspelt = (SamplerSpec, field(default=SamplerSpec(), short_names=("stepps",)))
    assert refused(a=misspelt) == "Refused.a: no field 'stepps' is inside"
    beyond = (int | None, field(default=1, short_names=("steps",)))
    assert refused(a=beyond) == "Refused.a: no field 'steps' is inside"


def test_an_effect_stands_for_a_field_that_exists() -> None:
    misspelt = field(
        default=None, effect=Effect.WEIGHTS, effects={"shft": Effect.WEIGHTS}, group=Group.WEIGHTS
    )
    assert refused(a=(SamplerSpec | None, misspelt)) == "Refused.a: no field 'shft' is inside"


def test_what_a_field_of_several_classes_holds_is_left_to_the_spec() -> None:
    @spec("declared-open-root")
    class Open(RootSpec):
        """A run of any optimizer."""

        name: str = field(default="", role=LOCATION)
        optim: OptimizerSpec = field(default=AdamWSpec(), short_names=("momentum",))

    assert aliases_of(Open) == {"momentum": "optim.momentum"}
    page = "\n".join(map(unstyled, help_lines(Open(name="x"), "x.py", "", ())))
    assert "--spec.momentum" not in page
