"""The example files of MindSpeed-MM's guides import, and each line of the report is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import wan22_high
from mm_config.families import wan21, wan22
from mm_config.importing.mindspeed import base
from mm_config.importing.mindspeed.importer import import_files
from mm_config.importing.verdict import Verdict
from mm_config.rules import problems
from mm_config.specs.diffusion import Expert
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Conditioning
from mm_config.specs.optim import MuonSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.serving import Residency
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights
from tests.mm_config.importing.mindspeed_files import DATA, edited, imported, told, trained

RUNS = {
    "training": ("seed_model.json", "seed_pretrain_high.sh"),
    "whole_training": (
        "seed_model.json",
        "data.json",
        "fsdp2_config.yaml",
        "tools.json",
        "seed_pretrain_high.sh",
    ),
    "guide": (
        "seed_custom_model.json",
        "seed_custom_data.json",
        "seed_custom_fsdp2.yaml",
        "seed_custom_pretrain.sh",
    ),
    "inference": ("inference_model.json", "seed_inference.sh"),
    "native": ("native.yaml",),
}


@pytest.mark.parametrize("run", RUNS)
def test_the_report_is_right_line_by_line(run: str, update: bool) -> None:
    _, report = imported(*RUNS[run])
    golden = DATA / f"report_{run}.txt"
    text = "\n".join(report.lines("experiments/imported.py")) + "\n"
    text = text.replace(f"{DATA}/", "")
    if update:
        golden.write_text(text, "utf-8")
    assert golden.read_text("utf-8") == text


@pytest.mark.parametrize("run", RUNS)
def test_each_fact_of_the_files_has_its_line(run: str) -> None:
    spec, report = imported(*RUNS[run])
    assert not report.of(Verdict.UNKNOWN) and not report.of(Verdict.REFUSED)
    places = [(entry.place, entry.key) for entry in report.entries if entry.place]
    assert len(places) > 50
    assert problems(spec) == []


def test_what_no_file_says_is_our_experiments() -> None:
    assert base.training(wan22.T2V_A14B, Expert.HIGH_NOISE) == wan22_high.SPEC


def test_the_guides_training_is_that_of_the_high_noise_expert() -> None:
    spec, report = trained(*RUNS["whole_training"])
    assert report.family == "wan22.T2V_A14B"
    assert spec.model == wan22.T2V_A14B.model
    assert (spec.expert, spec.diffusion.boundary, spec.diffusion.shift) == (Expert.HIGH_NOISE, 0.875, 5.0)
    assert spec.start_from == wan22.T2V_A14B.high_noise
    assert (spec.data.batch_size, spec.runtime.micro_batch_size, spec.schedule.steps) == (8, 1, 5000)
    assert spec.fsdp.wrap == ("blocks.*", "proj_out")
    assert (spec.recompute.mode, spec.recompute.modules) == (Recompute.FULL, ("blocks.*",))
    assert (spec.precision.compute, spec.precision.reduce) == (Dtype.BFLOAT16, Dtype.FLOAT32)
    assert spec.runtime.encode_ahead == 8 and spec.runtime.offload_encoders
    assert report.launcher == ("torchrun", "--nproc-per-node", "8", "--nnodes", "1")
    release = "Wan-AI/Wan2.2-T2V-A14B-Diffusers=Wan2.2-T2V-A14B-Diffusers"
    assert report.flags == ("--location", release, "--location", "clips=examples/wan2.2")


def test_the_other_fraction_of_the_index_axis_is_the_low_noise_expert(tmp_path: Path) -> None:
    high = ('"max_timestep_boundary": 0.417', '"max_timestep_boundary": 1.0')
    low = ('"min_timestep_boundary": 0.0', '"min_timestep_boundary": 0.417')
    spec, _ = import_files([edited(tmp_path, "seed_model.json", high, low), DATA / "seed_pretrain_high.sh"])
    assert isinstance(spec, TrainSpec)
    assert (spec.expert, spec.diffusion.boundary) == (Expert.LOW_NOISE, 0.875)
    assert spec.start_from == wan22.T2V_A14B.low_noise


def test_a_boundary_of_its_own_is_taken_with_the_same_points_and_reported(tmp_path: Path) -> None:
    change = ('"max_timestep_boundary": 0.417', '"max_timestep_boundary": 0.5')
    spec, report = import_files([edited(tmp_path, "seed_model.json", change)])
    assert isinstance(spec, TrainSpec) and spec.diffusion.boundary is not None
    # Indices 499 and 500 of MindSpeed-MM's grid.
    assert 5 * 0.5 / (1 + 4 * 0.5) < spec.diffusion.boundary < 5 * 0.501 / (1 + 4 * 0.501)
    text = told(report, Verdict.MAPPED, "diffusion.max_timestep_boundary")
    assert "index 500 is sigma 0.833333" in text and "0.875" in text


def test_the_image_to_video_experts_part_at_their_own_boundary(tmp_path: Path) -> None:
    file = edited(
        tmp_path,
        "seed_model.json",
        ('"model_type": "t2v"', '"model_type": "wan2.2-i2v"'),
        ('"in_dim": 16', '"in_dim": 36'),
        ('"task": "t2v"', '"task": "i2v"'),
        ("0.417", "0.358"),
    )
    spec, report = import_files([file])
    assert isinstance(spec, TrainSpec)
    assert (report.family, spec.diffusion.boundary) == ("wan22.I2V_A14B", 0.9)
    assert spec.model.conditioning is Conditioning.FIRST_FRAME


def test_the_wrong_boundary_of_image_to_video_inference_is_pointed_out(tmp_path: Path) -> None:
    file = edited(
        tmp_path,
        "inference_model.json",
        ('"model_type": "wan2.2-t2v"', '"model_type": "wan2.2-i2v"'),
        ('"in_dim": 16', '"in_dim": 36'),
    )
    spec, report = import_files([file])
    assert isinstance(spec, InferSpec) and spec.boundary == 0.875
    assert "0.89966" in told(report, Verdict.CONFLICT, "boundary_ratio")
    assert ("spec.boundary", 0.9, 0.875) in [
        (change.path, change.old, change.new) for change in report.comparisons[0].changes
    ]


def test_an_inference_file_beside_a_training_is_compared_with_it(tmp_path: Path) -> None:
    file = edited(
        tmp_path,
        "seed_model.json",
        ('"model_type": "t2v"', '"model_type": "wan2.2-i2v"'),
        ('"in_dim": 16', '"in_dim": 36'),
        ('"task": "t2v"', '"task": "i2v"'),
        ("0.417", "0.358"),
    )
    spec, report = import_files([file, DATA / "inference_model.json"])
    assert isinstance(spec, TrainSpec) and spec.diffusion.boundary == 0.9
    assert "training has 0.9" in told(report, Verdict.CONFLICT, "boundary_ratio")
    assert "'bf16' for training" in told(report, Verdict.CONFLICT, "ae.dtype")
    assert "is about generation" in told(report, Verdict.OUTSIDE, "diffusion.flow_shift")


def test_inference_is_that_of_both_experts() -> None:
    spec, report = imported(*RUNS["inference"])
    assert isinstance(spec, InferSpec) and report.family == "wan22.T2V_A14B"
    assert (spec.high_noise, spec.low_noise) == (wan22.T2V_A14B.high_noise, wan22.T2V_A14B.low_noise)
    sampler = spec.sampler
    assert (sampler.steps, sampler.shift) == (40, 3.0)
    assert (sampler.guidance_high_noise, sampler.guidance_low_noise) == (4.0, 3.0)
    assert spec.runtime.residency.experts is Residency.SWAP
    assert spec.samples.seeds == (1234,)
    assert "Megatron" in told(report, Verdict.DEAD, "--lr")


def test_the_developer_guides_own_class_is_a_network_of_its_sizes() -> None:
    spec, report = trained(*RUNS["guide"])
    assert spec.model == wan21.T2V_1_3B.model
    assert isinstance(spec.start_from, RandomWeights)
    assert "norms differ" in told(report, Verdict.DERIVED, "predictor.model_id")
    assert (spec.expert, spec.data.num_frames, spec.fsdp.shard_size) == (Expert.SINGLE, 49, 8)
    assert "nothing is loaded" in told(report, Verdict.DEFAULT, "--load")


def test_a_network_of_no_family_has_no_released_weights(tmp_path: Path) -> None:
    change = ('"num_layers": 40', '"num_layers": 39')
    spec, report = import_files([edited(tmp_path, "seed_model.json", change), DATA / "seed_pretrain_high.sh"])
    assert isinstance(spec, TrainSpec)
    assert report.family == "" and spec.start_from == ReleasedWeights(name="weights")
    assert "weights=./ckpt/mm_path/Wan2.2-T2V-A14B-mm/transformer/" in report.flags


def test_the_old_home_of_recomputation_is_pointed_out() -> None:
    spec, report = trained(*RUNS["native"])
    assert spec.recompute.mode is Recompute.NONE
    assert "features.recompute" in told(report, Verdict.MISSPELT, "parallel.recompute")


@pytest.mark.parametrize("flag", ["--use-deter-comp", "--npu-deterministic"])
def test_flags_of_determinism_reach_the_spec(tmp_path: Path, flag: str) -> None:
    script = edited(tmp_path, "seed_pretrain_high.sh", ("--clip-grad 1.0", f"--clip-grad 1.0 {flag}"))
    spec, report = import_files([DATA / "seed_model.json", script])
    assert isinstance(spec, TrainSpec) and spec.runtime.deterministic
    assert told(report, Verdict.MAPPED, flag) == "runtime.deterministic = True"


def test_the_cleaning_of_captions_that_no_file_asks_for_is_pointed_out(tmp_path: Path) -> None:
    key = "dataset_param.text_preprocess_methods"
    listed = """"text_preprocess_methods": [
            {"method": "basic_clean"},
            {"method": "whitespace_clean"}
        ],"""
    for now, place in (("", ""), ('"text_preprocess_methods": null,', "data.json:39")):
        _, report = import_files([edited(tmp_path, "data.json", (listed, now))])
        (entry,) = [one for one in report.of(Verdict.CONFLICT) if one.key == key]
        assert "strips Chinese" in entry.text and entry.place.endswith(place)
    _, report = import_files([DATA / "data.json"])
    assert key not in [one.key for one in report.of(Verdict.CONFLICT)]


def test_muon_has_its_own_flags(tmp_path: Path) -> None:
    muon = ("--clip-grad 1.0", "--clip-grad 1.0 --optimizer muon --ns-steps 3 --muon-momentum 0.9")
    spec, report = import_files([DATA / "seed_model.json", edited(tmp_path, "seed_pretrain_high.sh", muon)])
    assert isinstance(spec, TrainSpec)
    assert spec.optim == MuonSpec(lr=1e-5, momentum=0.9, newton_schulz_steps=3, weight_decay=0.01)
    assert told(report, Verdict.DEFAULT, "--matched-adamw-rms") == "optim.matched_adamw_rms = 0.2"
    adam = ("--clip-grad 1.0", "--clip-grad 1.0 --ns-steps 3")
    _, report = import_files([DATA / "seed_model.json", edited(tmp_path, "seed_pretrain_high.sh", adam)])
    assert "only --optimizer muon" in told(report, Verdict.DEAD, "--ns-steps")


def test_a_training_alone_with_its_script_has_the_network_of_our_experiment() -> None:
    spec, report = trained("seed_pretrain_high.sh")
    assert spec.model == wan22_high.SPEC.model and spec.expert is Expert.HIGH_NOISE
    assert "wan22_high" in told(report, Verdict.DEFAULT, "model.json")
