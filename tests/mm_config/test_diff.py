"""What differs between two specs."""

from experiments import tiny, tiny_high, tiny_low
from mm_config import diff, exact_hash, replace
from mm_config.diff import Change, format_changes
from mm_config.schema import EXECUTION, LOCATION, SEMANTIC
from mm_config.specs.data import ManifestSpec, ShapesSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.weights import RandomWeights, TrainedBy

SPEC = tiny_high.SPEC


def test_equal_specs_differ_in_nothing() -> None:
    assert diff(tiny.SPEC, tiny.SPEC) == ()
    assert diff(SPEC, replace(SPEC, "data.fps", 8)) == ()
    assert format_changes(()) == ()


def test_each_change_has_its_path_role_and_unit() -> None:
    changed = replace(
        SPEC, {"data.batch_size": 64, "runtime.log_every": 1, "name": "x", "optim.betas.1": 0.95, "seed": 3}
    )
    assert diff(SPEC, changed) == (
        Change("spec.name", LOCATION, "", "x", None),
        Change("spec.data.batch_size", SEMANTIC, 32, 64, "clips"),
        Change("spec.optim.betas.1", SEMANTIC, SPEC.optim.betas[1], 0.95, None),
        Change("spec.seed", SEMANTIC, 0, 3, None),
        Change("spec.runtime.log_every", EXECUTION, 10, 1, "steps"),
    )


def test_another_class_is_one_change() -> None:
    manifest = ManifestSpec(name="clips")
    changed = replace(SPEC, "data.dataset", manifest)
    assert diff(SPEC, changed) == (Change("spec.data.dataset", SEMANTIC, ShapesSpec(), manifest),)
    assert format_changes(diff(SPEC, changed))[1] == "  spec.data.dataset: shapes-dataset -> manifest-dataset"


def test_trained_weights_are_compared_field_by_field() -> None:
    changed = replace(tiny.SPEC, "low_noise.spec.optim.lr", 1e-3)
    assert [change.path for change in diff(tiny.SPEC, changed)] == ["spec.low_noise.spec.optim.lr"]


def test_how_a_training_was_carried_out_is_in_no_hash_of_what_uses_it() -> None:
    changed = replace(tiny.SPEC, {"low_noise.spec.data.workers": 7, "runtime.device": "cpu"})
    assert format_changes(diff(tiny.SPEC, changed)) == (
        "execution (in exact_hash only)",
        "  spec.runtime.device: 'auto' -> 'cpu'",
        "execution of a training that weights come from (in no hash)",
        "  spec.low_noise.spec.data.workers: 2 -> 7",
    )
    elsewhere = replace(tiny.SPEC, "low_noise.spec.data.workers", 7)
    assert exact_hash(elsewhere) == exact_hash(tiny.SPEC)


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


def test_roots_of_other_classes_are_one_change() -> None:
    (change,) = diff(SPEC, tiny.SPEC)
    assert (change.path, change.role) == ("spec", SEMANTIC)


def test_lines_are_grouped_by_role() -> None:
    changed = replace(
        tiny.SPEC,
        {
            "name": "x",
            "runtime.batch_size": 8,
            "num_frames": 21,
            "samples.prompts": ("a", "b"),
            "boundary": None,
        },
    )
    assert format_changes(diff(tiny.SPEC, changed)) == (
        "semantic (in spec_hash and exact_hash)",
        "  spec.boundary: 0.875 -> None sigma",
        "  spec.num_frames: 17 -> 21 frames",
        "  spec.samples.prompts: ('a red circle moving left', ... 32 items) -> ('a', 'b')",
        "execution (in exact_hash only)",
        "  spec.runtime.batch_size: 64 -> 8 videos",
        "location (in no hash)",
        "  spec.name: '' -> 'x'",
    )
