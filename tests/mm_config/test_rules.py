"""Rules between fields: every broken one is named, with its path and what would be right."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from experiments import tiny, tiny_high, tiny_low
from mm_config import problems, replace
from mm_config.errors import SpecError
from mm_config.patterns import matches, module_names
from mm_config.rules import check
from mm_config.specs.data import ManifestSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.encoders import WanAutoencoderSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights, TrainedBy

INFER = tiny.SPEC
TRAIN = replace(
    tiny_high.SPEC,
    {
        "model.hidden_size": 192,
        "diffusion.shift": 5.0,
        "diffusion.boundary": 0.875,
        "data.batch_size": 32,
        "schedule.warmup_steps": 5,
    },
)


def found(spec: Any, changes: dict[str, Any], world_size: int | None = None) -> dict[str, str]:
    listed = problems(replace(spec, changes), world_size)
    by_path = {problem.path: problem.message for problem in listed}
    assert len(by_path) == len(listed)
    return by_path


def test_every_experiment_keeps_the_rules() -> None:
    folder = Path(__file__).parents[2] / "experiments"
    for file in folder.glob("*.py"):
        if file.stem != "__init__":
            assert problems(importlib.import_module(f"experiments.{file.stem}").SPEC, world_size=1) == []


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
        "spec.num_frames": "1 frames are not of the form 8k+5; nearest: 5"
    }


def test_sizes_that_are_no_whole_patches() -> None:
    assert found(INFER, {"height": 60, "width": 10}) == {
        "spec.height": "60 pixels are no multiple of 32; nearest: 32 or 64",
        "spec.width": "10 pixels are no multiple of 32; nearest: 32",
    }


def test_a_clip_longer_than_the_position_table() -> None:
    assert found(TRAIN, {"model.rope_max_seq_len": 4, "data.width": 32}) == {
        "spec.data.num_frames": "makes 5 tokens along this axis, model.rope_max_seq_len is 4"
    }


def test_the_network_fits_its_encoders() -> None:
    assert found(TRAIN, {"model.in_channels": 7, "model.text_dim": 7}) == {
        "spec.model.in_channels": "is 7, but spec.autoencoder.latent_channels is "
        f"{TRAIN.autoencoder.latent_channels}; make them equal",
        "spec.model.text_dim": f"is 7, but spec.text_encoder.text_dim is {TRAIN.text_encoder.text_dim}; "
        "make them equal",
    }


@pytest.mark.parametrize(
    ("changes", "path", "part"),
    [
        ({"model.num_attention_heads": 5}, "num_attention_heads", "do not divide hidden_size 192; nearest"),
        ({"model.num_attention_heads": 64}, "num_attention_heads", "head width 3 must be even"),
        ({"model.num_attention_heads": 48}, "num_attention_heads", "head width 4 is below 6"),
        ({"model.freq_dim": 63}, "freq_dim", "must be even"),
    ],
)
def test_heads_and_rotary_positions(changes: dict[str, Any], path: str, part: str) -> None:
    assert part in found(TRAIN, changes)[f"spec.model.{path}"]


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


def test_the_batch_divides_over_ranks_and_micro_batches() -> None:
    assert found(TRAIN, {}, world_size=4) == {}
    assert found(TRAIN, {}, world_size=3) == {
        "spec.data.batch_size": "32 clips do not divide over 3 ranks; nearest: 30 or 33"
    }
    assert found(TRAIN, {}, world_size=64) == {
        "spec.data.batch_size": "32 clips do not divide over 64 ranks; nearest: 64"
    }
    micro = {"runtime.micro_batch_size": 5}
    assert found(TRAIN, micro, world_size=2) == {
        "spec.runtime.micro_batch_size": "5 does not divide a rank's 16 clips; nearest: 4 or 8"
    }
    assert "spec.runtime.micro_batch_size" in found(TRAIN, micro)


def test_a_short_trial_of_a_long_schedule_is_allowed() -> None:
    assert found(TRAIN, {"schedule.steps": 10, "schedule.warmup_steps": 100}) == {}


@pytest.mark.parametrize("name", ["../outside", "a/b", ".cache", "-x", " "])
def test_a_label_names_a_folder(name: str) -> None:
    message = f"must be a folder's name that starts with a letter or a digit, got {name!r}"
    assert found(TRAIN, {"name": name}) == {"spec.name": message}
    assert found(INFER, {"name": "Ünder the sea", "low_noise.spec.name": name}) == {
        "spec.low_noise.spec.name": message
    }


def test_generation_is_not_spread_over_ranks() -> None:
    assert found(INFER, {}, world_size=1) == {}
    assert found(INFER, {}, world_size=2) == {
        "spec": "is for one process, got 2 ranks; torchrun is for trainings"
    }


def test_sharding_patterns_match_modules() -> None:
    wrap = ("blocks.*", "block.*", "blocks.*.atn1", "*.0")
    assert found(TRAIN, {"fsdp.wrap": wrap}) == {
        "spec.fsdp.wrap.1": "'block.*' matches no module; nearest: 'blocks.*', 'blocks', 'blocks.*.ffn'",
        "spec.fsdp.wrap.2": "'blocks.*.atn1' matches no module; "
        "nearest: 'blocks.*.attn1', 'blocks.*.attn2', 'blocks.*.attn1.to_v'",
    }


def test_patterns_match_segment_by_segment() -> None:
    names = module_names(TRAIN.model)
    assert [name for name in names if matches(name, "blocks.*")] == [
        f"blocks.{index}"
        for index in range(TRAIN.model.num_layers)  # type: ignore[attr-defined]
    ]
    assert "condition_embedder.time_embedder" in names and "blocks.0.attn1.to_out.0" in names


def test_rendered_clips_give_what_the_data_asks_for() -> None:
    assert found(TRAIN, {"data.num_frames": 21, "data.fps": 16.0}) == {
        "spec.data.num_frames": "21 frames are asked for, but dataset.num_frames renders 17",
        "spec.data.fps": "is 16.0, but dataset.fps renders 8; make them equal",
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


def test_words_that_name_devices() -> None:
    assert found(TRAIN, {"runtime.device": "gpu"}) == {
        "spec.runtime.device": "must be one of auto, cpu, cuda, npu, got 'gpu'; did you mean 'cuda'?",
    }


def test_stages_of_the_autoencoder() -> None:
    channels = TRAIN.autoencoder.latent_channels
    autoencoder = WanAutoencoderSpec(weights=RandomWeights(), latent_channels=channels)
    base = replace(TRAIN, "autoencoder", autoencoder)
    assert found(base, {"autoencoder.temporal_downsample": (True,)}).keys() == {
        "spec.autoencoder.temporal_downsample"
    }
    assert found(base, {"autoencoder.temporal_downsample": (True, False, False)}) == {
        "spec.autoencoder.temporal_stride": "is 4, but temporal_downsample makes it 2"
    }


def test_cells_have_no_more_coefficients_than_values() -> None:
    changes = {"autoencoder.spatial_stride": 2, "model.in_channels": 49, "model.out_channels": 49}
    assert found(TRAIN, {**changes, "autoencoder.latent_channels": 49}) == {
        "spec.autoencoder.latent_channels": "is 49, but a cell of 4 frames of 2x2 pixels has 48 coefficients"
    }


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
