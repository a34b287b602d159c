"""What differs between two specs."""

from experiments import tiny, tiny_high, tiny_low
from mm_config import diff, replace
from mm_config.schema.diff import Change, for_person, unshared
from mm_config.schema.evolve import get
from mm_config.schema.fields import EXECUTION, LOCATION, SEMANTIC
from mm_config.specs.datasets import ManifestSpec, ShapesSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.encoders import Umt5TextEncoderSpec
from mm_config.specs.weights import RandomWeights, TrainedBy

SPEC = tiny_high.SPEC


def test_equal_specs_differ_in_nothing() -> None:
    assert diff(tiny.SPEC, tiny.SPEC) == ()
    assert diff(SPEC, replace(SPEC, "data.fps", 8)) == ()
    assert unshared(tiny.SPEC, tiny.SPEC) == ()


def test_each_change_has_its_path_role_and_unit() -> None:
    changed = replace(
        SPEC, {"data.batch_size": 64, "runtime.log_every": 1, "name": "x", "optim.betas.1": 0.95, "seed": 3}
    )
    assert diff(SPEC, changed) == (
        Change("spec.name", LOCATION, "", "x", None),
        Change("spec.data.batch_size", SEMANTIC, 32, 64, "clips"),
        Change("spec.optim.betas.1", SEMANTIC, get(SPEC, "optim.betas.1"), 0.95, None),
        Change("spec.seed", SEMANTIC, 0, 3, None),
        Change("spec.runtime.log_every", EXECUTION, 10, 1, "steps"),
    )


def test_another_class_is_one_change() -> None:
    manifest = ManifestSpec(name="clips")
    changed = replace(SPEC, "data.dataset", manifest)
    assert diff(SPEC, changed) == (Change("spec.data.dataset", SEMANTIC, ShapesSpec(), manifest),)


def test_trained_weights_are_compared_field_by_field() -> None:
    changed = replace(tiny.SPEC, "low_noise.spec.optim.lr", 1e-3)
    assert [change.path for change in diff(tiny.SPEC, changed)] == ["spec.low_noise.spec.optim.lr"]


def test_how_a_training_was_carried_out_is_told_apart() -> None:
    changed = replace(tiny.SPEC, {"low_noise.spec.data.workers": 7, "runtime.device": "cpu"})
    assert diff(tiny.SPEC, changed) == (
        Change("spec.low_noise.spec.data.workers", EXECUTION, 2, 7, by_hash=True),
        Change("spec.runtime.device", EXECUTION, "auto", "cpu"),
    )


def test_the_two_experts_of_the_tiny_family_differ_in_these_fields() -> None:
    found = {change.path: (change.old, change.new) for change in diff(SPEC, tiny_low.SPEC)}
    assert found["spec.expert"] == (Expert.HIGH_NOISE, Expert.LOW_NOISE)
    assert found["spec.start_from"] == (RandomWeights(), TrainedBy(spec=SPEC))


def test_tuples_of_other_length_and_none_are_one_change() -> None:
    changed = replace(tiny.SPEC, {"samples.seeds": (1001,), "samples.scorer": None})
    assert [change.path for change in diff(tiny.SPEC, changed)] == [
        "spec.samples.seeds",
        "spec.samples.scorer",
    ]


def test_roots_of_other_classes_are_one_change_and_those_of_their_common_fields() -> None:
    generation = replace(
        tiny.SPEC,
        {"model.num_layers": 5, "runtime.device": "cpu", "runtime.build_missing": False, "name": "x"},
    )
    assert diff(SPEC, generation) == (
        Change("spec", SEMANTIC, SPEC, generation),
        Change("spec.name", LOCATION, "", "x"),
        Change("spec.model.num_layers", SEMANTIC, 3, 5),
        Change("spec.samples", EXECUTION, None, generation.samples),
        Change("spec.runtime.device", EXECUTION, "auto", "cpu"),
    )
    assert [change.path for change in diff(generation, SPEC)] == [
        "spec",
        "spec.name",
        "spec.model.num_layers",
        "spec.samples",
        "spec.runtime.device",
    ]


def test_fields_that_only_one_kind_has_are_named_once_each() -> None:
    only_training, only_generation = unshared(SPEC, tiny.SPEC), unshared(tiny.SPEC, SPEC)
    assert {"spec.optim", "spec.data", "spec.seed", "spec.runtime.log_every"} <= set(only_training)
    assert {"spec.sampler", "spec.boundary", "spec.runtime.batch_size"} <= set(only_generation)
    assert not {"spec.model", "spec.runtime", "spec.runtime.device"} & {*only_training, *only_generation}


def test_a_chosen_class_is_not_looked_into_between_kinds() -> None:
    changed = replace(tiny.SPEC, "text_encoder", Umt5TextEncoderSpec(weights=RandomWeights()))
    found = {change.path: change for change in diff(SPEC, changed)}
    assert found["spec.text_encoder"].new == changed.text_encoder
    assert not [path for path in found if path.startswith("spec.text_encoder.")]


def test_values_are_shown_in_one_line() -> None:
    assert for_person("it's\n") == repr("it's\n")
    assert for_person(Expert.HIGH_NOISE) == "high_noise"
    assert for_person(ShapesSpec()) == "shapes-dataset"
    assert for_person((1, 2.5, None)) == "(1, 2.5, None)"
    assert for_person(tuple("abcdefghijklmnopqrstuvwxyz")) == "('a', ... 26 items)"
