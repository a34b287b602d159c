"""Rules between fields: every broken one is named, with its path and what would be right."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from experiments import tiny_high, tiny_low
from mm_config import problems, replace
from mm_config.rules import check
from mm_config.schema.errors import SpecError
from mm_config.schema.evolve import get
from mm_config.specs.datasets import ManifestSpec
from mm_config.specs.diffusion import Expert, SamplerSpec, TimestepSampling
from mm_config.specs.infer import InferSpec
from mm_config.specs.monitoring import TrainingSamplesSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights, TrainedBy
from tests.mm_config.breaking import ALL, INFER, TRAIN, found, only
from tests.mm_config.strategies import specs


def test_every_experiment_keeps_the_rules() -> None:
    folder = Path(__file__).parents[2] / "experiments"
    for file in folder.glob("*.py"):
        if file.stem != "__init__":
            assert problems(importlib.import_module(f"experiments.{file.stem}").SPEC, world_size=1) == []


@pytest.mark.parametrize("spec", ALL)
def test_the_specs_that_these_tests_break_keep_the_rules(spec: Any) -> None:
    assert problems(spec) == problems(spec, world_size=1) == []


def rules_name_fields(examples: int) -> None:
    # Shrinking would take minutes for specs of this size.
    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
        phases=(Phase.generate,),
    )
    @given(st.one_of(specs(TrainSpec), specs(InferSpec)), st.none() | st.integers(1, 64))
    def check_one(spec: Any, world_size: int | None) -> None:
        for problem in problems(spec, world_size):
            get(spec, problem.path)
            assert problem.message and "\n" not in problem.message

    check_one()


def test_every_problem_names_a_field_that_there_is() -> None:
    rules_name_fields(8)


@pytest.mark.slow
def test_every_problem_of_many_specs_names_a_field_that_there_is() -> None:
    rules_name_fields(300)


@pytest.mark.parametrize(
    ("frames", "nearest"), [(16, "13 or 17"), (82, "81 or 85"), (2, "1 or 5"), (84, "81 or 85")]
)
def test_frames_that_the_autoencoder_would_cut_off(frames: int, nearest: str) -> None:
    message = f"{frames} frames are not of the form 4k+1; nearest: {nearest}"
    assert found(INFER, {"num_frames": frames}) == {"spec.num_frames": message}
    manifest = ManifestSpec(name="x")
    assert found(TRAIN, {"data.num_frames": frames, "data.dataset": manifest}) == {
        "spec.data.num_frames": message
    }


def test_patches_over_frames_ask_for_whole_patches() -> None:
    patch = {"model.patch_size": (2, 4, 4), "high_noise": RandomWeights(), "low_noise": RandomWeights()}
    assert found(INFER, {**patch, "num_frames": 13}) == {}
    assert found(INFER, {**patch, "num_frames": 17}) == {
        "spec.num_frames": "17 frames are not of the form 8k+5; nearest: 13 or 21"
    }
    assert found(INFER, {**patch, "num_frames": 1}) == {
        "spec.num_frames": "1 frame is not of the form 8k+5; nearest: 5"
    }


def test_sizes_that_are_no_whole_patches() -> None:
    assert found(INFER, {"height": 60, "width": 10}) == {
        "spec.height": "60 pixels are no multiple of 32; nearest: 32 or 64",
        "spec.width": "10 pixels are no multiple of 32; nearest: 32",
    }


def test_a_clip_longer_than_the_position_table() -> None:
    assert found(TRAIN, {"model.rope_max_seq_len": 4, "data.width": 32}) == {
        "spec.data.num_frames": "makes 5 tokens along this axis, model.rope_max_seq_len is 4; at most 13"
    }


def test_an_expert_needs_a_boundary_and_a_single_network_has_none() -> None:
    assert found(TRAIN, {"expert": Expert.SINGLE})["spec.expert"].startswith(
        "is single, but spec.diffusion.boundary is 0.875"
    )
    assert "needs spec.diffusion.boundary" in found(TRAIN, {"diffusion.boundary": None})["spec.expert"]
    assert found(TRAIN, {"expert": Expert.SINGLE, "diffusion.boundary": None}) == {}


def test_both_experts_get_a_noise_level() -> None:
    (message,) = found(TRAIN, {"diffusion.boundary": 0.004}).values()
    assert "no noise level for the low-noise expert" in message and "ends at 0.00498" in message
    assert found(TRAIN, {"diffusion.boundary": 0.005}) == {}
    assert found(TRAIN, {"diffusion.boundary": 0.9999}) == {}
    (message,) = found(TRAIN, {"diffusion.sigma_max": 0.5}).values()
    assert (
        "0.875 leaves no noise level for the high-noise expert" in message and "begins at 0.833333" in message
    )
    assert found(TRAIN, {"diffusion.drop_last": False, "diffusion.boundary": 0.004}) == {}
    assert found(TRAIN, {"diffusion.num_train_timesteps": 1, "diffusion.boundary": 0.9}).keys() == {
        "spec.diffusion.boundary"
    }


def test_the_grid_falls() -> None:
    only(
        TRAIN,
        {"diffusion.sigma_min": 0.6, "diffusion.sigma_max": 0.6},
        "diffusion.sigma_min",
        "below sigma_max",
    )


def test_settings_of_another_sampling_of_timesteps() -> None:
    wrong = found(
        TRAIN, {"diffusion.logit_mean": 0.5, "diffusion.logit_std": 2.0, "diffusion.mode_scale": 1.0}
    )
    assert wrong == {
        "spec.diffusion.logit_mean": "is 0.5, which only sampling = logit_normal uses; leave it at 0.0",
        "spec.diffusion.logit_std": "is 2.0, which only sampling = logit_normal uses; leave it at 1.0",
        "spec.diffusion.mode_scale": "is 1.0, which only sampling = mode uses; leave it at 1.29",
    }
    normal = {"diffusion.sampling": TimestepSampling.LOGIT_NORMAL, "diffusion.logit_mean": 0.5}
    assert found(TRAIN, normal) == {}
    assert found(TRAIN, {"diffusion.sampling": TimestepSampling.MODE, "diffusion.mode_scale": 1.0}) == {}


@pytest.mark.parametrize("name", ["../outside", "a/b", ".cache", "-x", " "])
def test_a_label_names_a_folder(name: str) -> None:
    form = "starts with a letter or a digit and holds no control characters"
    message = f"must be a folder's name that {form}, got {name!r}"
    assert found(TRAIN, {"name": name}) == {"spec.name": message}
    assert found(INFER, {"name": "Ünder the sea", "low_noise.spec.name": name}) == {
        "spec.low_noise.spec.name": message
    }


def test_training_starts_from_weights_of_the_same_network() -> None:
    base = tiny_low.SPEC
    assert found(base, {"start_from.spec.model.num_layers": 99}) == {
        "spec.start_from.spec.model.num_layers": "was trained with 99, but spec.model.num_layers is "
        f"{TRAIN.model.num_layers}"  # type: ignore[attr-defined]
    }
    assert found(base, {"start_from": TrainedBy(spec=INFER)}) == {
        "spec.start_from.spec": "must be a training spec, got InferSpec"
    }


def test_two_experts_are_given_exactly_where_there_is_a_boundary() -> None:
    released = {"high_noise": ReleasedWeights(name="x"), "low_noise": ReleasedWeights(name="y")}
    assert found(INFER, {**released, "boundary": None}).keys() == {"spec.low_noise"}
    assert found(INFER, {**released, "low_noise": None}) == {
        "spec.low_noise": "is missing, but spec.boundary 0.875 needs two experts"
    }
    assert found(INFER, {**released, "low_noise": None, "boundary": None}) == {}


def test_trained_experts_fit_the_inference_spec() -> None:
    changes = {
        "high_noise.spec.model.num_layers": 99,
        "high_noise.spec.text_encoder.ngrams": 1,
        "high_noise.spec.runtime.device": "cpu",
        "low_noise": TrainedBy(spec=replace(tiny_high.SPEC, "diffusion.boundary", 0.9)),
    }
    assert found(INFER, changes) == {
        "spec.high_noise.spec.model.num_layers": "was trained with 99, but spec.model.num_layers is "
        f"{TRAIN.model.num_layers}",  # type: ignore[attr-defined]
        "spec.high_noise.spec.text_encoder.ngrams": "was trained with 1, but spec.text_encoder.ngrams is "
        f"{INFER.text_encoder.ngrams}",  # type: ignore[attr-defined]
        "spec.low_noise.spec.diffusion.boundary": "was trained with 0.9, but spec.boundary is 0.875",
        "spec.low_noise.spec.expert": "must be low_noise, got high_noise",
    }


def test_prompts_say_something() -> None:
    assert found(INFER, {"samples.prompts": ("a cat", "", " \n")}) == {
        "spec.samples.prompts.1": "must say something, got ''",
        "spec.samples.prompts.2": "must say something, got ' \\n'",
    }
    samples = TrainingSamplesSpec(prompts=("", "a cat"), sampler=SamplerSpec())
    assert found(TRAIN, {"samples": samples}) == {"spec.samples.prompts.0": "must say something, got ''"}


def test_problems_inside_trained_weights_are_found_too() -> None:
    assert found(INFER, {"low_noise.spec.fsdp.wrap": ("nothing.*",)}).keys() == {
        "spec.low_noise.spec.fsdp.wrap.0"
    }


def test_check_raises_all_problems_at_once() -> None:
    check(TRAIN, world_size=2)
    wrong = replace(TRAIN, {"data.num_frames": 16, "model.freq_dim": 63})
    with pytest.raises(SpecError) as caught:
        check(wrong, world_size=2)
    assert list(caught.value.problems) == problems(wrong, world_size=2)
    assert len(caught.value.problems) == 2
