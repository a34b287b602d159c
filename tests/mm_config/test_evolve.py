"""Reading and changing specs by path."""

from typing import Any

import pytest

from experiments import tiny, tiny_high, tiny_low
from mm_config import replace
from mm_config.schema.decorator import spec
from mm_config.schema.errors import SpecError
from mm_config.schema.evolve import get, leaves
from mm_config.schema.fields import EXECUTION, SEMANTIC, field, spec_fields
from mm_config.specs.datasets import ShapesSpec
from mm_config.specs.optim import AdamWSpec, Decay
from mm_config.specs.train import TrainSpec

SPEC = tiny_high.SPEC
BETAS = get(SPEC, "optim.betas")


def refusals(spec: Any, changes: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        replace(spec, changes)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_one_value_is_replaced_and_the_original_stays() -> None:
    changed = replace(SPEC, "optim.lr", 1e-5)
    assert changed.optim.lr == 1e-5
    assert SPEC.optim.lr != 1e-5
    assert replace(SPEC, "spec.optim.lr", 1e-5) == changed
    assert replace(changed, "optim.lr", SPEC.optim.lr) == SPEC


def test_several_values_whole_specs_and_items_of_tuples_are_replaced_at_once() -> None:
    changed = replace(
        SPEC,
        {
            "optim.lr": 1.0,
            "optim.betas.1": 0.95,
            "schedule.decay": Decay.LINEAR,
            "data.dataset": ShapesSpec(seed=7),
            "spec.name": "x",
        },
    )
    assert changed.optim == AdamWSpec(lr=1.0, betas=(BETAS[0], 0.95))
    assert (changed.schedule.decay, changed.name) == (Decay.LINEAR, "x")
    assert changed.data.dataset == ShapesSpec(seed=7)
    assert replace(tiny.SPEC, "samples.seeds.0", 5).samples.seeds == (5, 1002)
    assert replace(SPEC, {}) == SPEC


def test_specs_inside_trained_weights_are_reached() -> None:
    changed = replace(tiny.SPEC, "high_noise.spec.schedule.steps", 3)
    assert get(changed, "high_noise.spec.schedule.steps") == 3
    assert get(changed, "spec.low_noise.spec.schedule.steps") == tiny_low.SPEC.schedule.steps


def test_all_problems_come_at_once_with_what_was_meant() -> None:
    found = refusals(
        SPEC,
        {
            "lr": 1,
            "optim.xyzzy": 1,
            "optim.weight_decai": 1,
            "optim.eps": -1,
            "data.batch_size": "many",
            "optim.betas.2": 0.5,
            "seed.x": 1,
        },
    )
    assert found == {
        "spec.lr": "TrainSpec has no field 'lr'; did you mean spec.optim.lr?",
        "spec.optim.xyzzy": "AdamWSpec has no field 'xyzzy'; "
        f"it has {', '.join(attribute.name for attribute in spec_fields(AdamWSpec))}",
        "spec.optim.weight_decai": "AdamWSpec has no field 'weight_decai'; "
        "did you mean spec.optim.weight_decay?",
        "spec.optim.eps": "must be > 0, got -1",
        "spec.data.batch_size": "expected int, got str 'many'",
        "spec.optim.betas.2": "spec.optim.betas has 2 items, '2' is none of 0 to 1",
        "spec.seed.x": "spec.seed is 0, which has no fields; set it as a whole",
    }


@pytest.mark.parametrize("index", ["-1", "01", "1.0", "x", "", "²"])
def test_items_of_tuples_are_named_by_their_plain_index(index: str) -> None:
    assert refusals(SPEC, {f"optim.betas.{index}": 0.5})


@pytest.mark.parametrize(
    "changes",
    [
        {"optim": AdamWSpec(), "optim.lr": 1.0},
        {"optim.lr": 1.0, "optim": AdamWSpec()},
        {"optim.lr": 1.0, "spec.optim.lr": 2.0},
    ],
)
def test_a_field_is_set_by_one_path_only(changes: dict[str, Any]) -> None:
    (message,) = refusals(SPEC, changes).values()
    assert message.startswith("is set twice")


def test_suggestions_stay_inside_the_spec_that_was_meant() -> None:
    assert refusals(tiny.SPEC, {"high_noise.spec.lr": 1.0}) == {
        "spec.high_noise.spec.lr": "TrainSpec has no field 'lr'; did you mean spec.high_noise.spec.optim.lr?"
    }


def test_get_names_the_nearest_field() -> None:
    assert get(SPEC, "optim.betas.1") == BETAS[1]
    with pytest.raises(
        SpecError, match=r"spec\.optim\.lrr: AdamWSpec has no field 'lrr'; did you mean spec\.optim\.lr\?"
    ):
        get(SPEC, "optim.lrr")


def test_each_leaf_can_be_read_and_set_by_its_path() -> None:
    found = list(leaves(tiny.SPEC))
    assert len({leaf.path for leaf in found}) == len(found) > 100
    for leaf in found:
        assert get(tiny.SPEC, leaf.path) == leaf.value
        assert leaf.help
    assert replace(tiny.SPEC, {leaf.path: leaf.value for leaf in found}) == tiny.SPEC


def test_leaves_carry_what_help_needs() -> None:
    by_path = {leaf.path: leaf for leaf in leaves(SPEC)}
    workers = by_path["data.workers"]
    assert (workers.value, workers.type, workers.role) == (2, int, EXECUTION)
    assert by_path["data.batch_size"].info.unit == "clips"
    assert by_path["optim.lr"].help == "Peak learning rate."
    assert by_path["optim.betas"].value == BETAS
    assert by_path["model.hidden_size"].owner.__name__ == "WanTransformerSpec"


def test_leaves_can_stop_at_specs_that_count_by_their_hash() -> None:
    deep = {leaf.path for leaf in leaves(tiny.SPEC)}
    shallow = {leaf.path for leaf in leaves(tiny.SPEC, by_hash=False)}
    assert deep - shallow == {
        path for path in deep if path.startswith(("high_noise.spec.", "low_noise.spec."))
    }


def test_tuples_of_specs_are_walked_by_index_and_roles_are_inherited() -> None:
    @spec("test-part")
    class Part:
        """One part of a mixture."""

        weight: float = field(default=1.0, gt=0)
        """Its share."""

    @spec("test-mixture")
    class Mixture:
        """Several parts."""

        parts: tuple[Part, ...] = field(default=(Part(), Part(weight=2.0)))
        """The parts."""
        local: Part = field(default=Part(), role=EXECUTION)
        """One more."""

    found = {leaf.path: leaf.role for leaf in leaves(Mixture())}
    assert found == {"parts.0.weight": SEMANTIC, "parts.1.weight": SEMANTIC, "local.weight": EXECUTION}
    assert replace(Mixture(), "parts.1.weight", 3.0).parts == (Part(), Part(weight=3.0))
    assert refusals(Mixture(), {"parts.0.weight": -1.0}) == {"spec.parts.0.weight": "must be > 0, got -1.0"}


def test_the_class_of_the_spec_is_kept() -> None:
    assert type(replace(SPEC, "seed", 1)) is TrainSpec
