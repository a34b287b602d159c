"""The example files of MindSpeed-MM's guides import, and each line of the report is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import wan22_high
from mm_config.families import wan21, wan22
from mm_config.importing.mindspeed import base
from mm_config.importing.mindspeed.importer import import_files
from mm_config.importing.mindspeed.report import Report
from mm_config.importing.verdict import Verdict
from mm_config.rules import problems
from mm_config.schema.errors import UserError
from mm_config.specs.diffusion import Expert
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Conditioning
from mm_config.specs.optim import MuonSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.serving import Residency
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights

DATA = Path(__file__).parent / "data"
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


def imported(*names: str, allow_unknown: bool = False) -> tuple[TrainSpec | InferSpec, Report]:
    return import_files([DATA / name for name in names], allow_unknown=allow_unknown)


def trained(*names: str) -> tuple[TrainSpec, Report]:
    spec, report = imported(*names)
    assert isinstance(spec, TrainSpec)
    return spec, report


def edited(folder: Path, name: str, *changes: tuple[str, str]) -> Path:
    """A copy of a data file with texts replaced."""
    text = (DATA / name).read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = folder / name
    file.write_text(text, "utf-8")
    return file


def refusals(*files: Path) -> str:
    with pytest.raises(UserError) as raised:
        import_files(files)
    return str(raised.value)


def told(report: Report, verdict: Verdict, key: str) -> str:
    """The one text of a key with a verdict."""
    (text,) = [entry.text for entry in report.of(verdict) if entry.key == key]
    return text


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


def test_the_examples_as_printed_are_refused_with_their_lines() -> None:
    text = refusals(DATA / "seed_model_as_printed.json")
    assert "seed_model_as_printed.json:59: " in text and "seed_model_as_printed.json:63: " in text
    text = refusals(DATA / "seed_clips_as_printed.json")
    assert "json:7: [0].resolution: {480, 832} is a set" in text and '{"height": 480, "width": 832}' in text


def test_misspelt_keys_are_told_with_what_they_meant(tmp_path: Path) -> None:
    inside = (
        '"i2v_processor": {"processor_id": "wan_i2v_processor", "i2v_vae_encod_tiling": false}, "do_sample"'
    )
    _, report = import_files([edited(tmp_path, "seed_model.json", ('"do_sample"', inside))])
    text = told(report, Verdict.MISSPELT, "ae.i2v_processor.i2v_vae_encod_tiling")
    assert text.startswith("meant ae.i2v_processor.i2v_vae_encode_tiling:") and '"auto" was in force' in text


def test_two_patches_of_one_function_are_a_conflict(tmp_path: Path) -> None:
    both = '"bridge_patch": true, "clip_grad_async"'
    _, report = import_files([edited(tmp_path, "seed_model.json", ('"clip_grad_async"', both))])
    assert "get_model" in told(report, Verdict.CONFLICT, "patch.bridge_patch")
    assert "get_model" in told(report, Verdict.CONFLICT, "patch.get_dist_model_load_from_pt")


def test_a_missing_attention_mask_is_a_conflict_with_context_parallelism(tmp_path: Path) -> None:
    script = edited(tmp_path, "seed_pretrain_high.sh", ("\nCP=1\n", "\nCP=2\n"))
    spec, report = import_files([DATA / "seed_model.json", script])
    assert isinstance(spec, TrainSpec) and spec.parallel.ulysses == 2 and spec.data.batch_size == 4
    assert "causal" in told(report, Verdict.CONFLICT, "--attention-mask-type")


def test_the_old_home_of_recomputation_is_pointed_out() -> None:
    spec, report = trained(*RUNS["native"])
    assert spec.recompute.mode is Recompute.NONE
    assert "features.recompute" in told(report, Verdict.MISSPELT, "parallel.recompute")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("\nPP=1\n", "\nPP=2\n", "--pipeline-model-parallel-size is '2'"),
        ("--clip-grad 1.0", "--clip-grad 0.0", "--clip-grad: spec.optim.max_grad_norm"),
        ("--lr-decay-style constant", "--lr-decay-style inverse-square-root", "--lr-decay-style is"),
        ("--num-workers 8", "--num-workers 0", "--num-workers is '0'"),
        ("\nMBS=1\n", "\nMBS=x\n", "GBS: $((x*1*8)): x is no number"),
    ],
)
def test_what_our_specs_can_not_say_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, line: str
) -> None:
    text = refusals(DATA / "seed_model.json", edited(tmp_path, "seed_pretrain_high.sh", (old, new)))
    assert line in text and "seed_pretrain_high.sh:" in text


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('"qk_norm": true', '"qk_norm": false', "predictor.qk_norm is false"),
        ('"model_id": "wandit"', '"model_id": "vace"', "predictor.model_id is 'vace'"),
        ('"text_len"', '"FPDT": true, "text_len"', "predictor.FPDT is true"),
        ('"task"', '"dpo": {"loss_beta": 2000}, "task"', "dpo.loss_beta is 2000"),
        ('"text_len"', '"txt_len": 5, "text_len"', "did you mean predictor.text_len?"),
    ],
)
def test_keys_that_can_not_be_imported_are_named(tmp_path: Path, old: str, new: str, word: str) -> None:
    text = refusals(edited(tmp_path, "seed_model.json", (old, new)))
    assert word in text and "seed_model.json:" in text


def test_unknown_keys_are_only_reported_where_that_is_asked_for(tmp_path: Path) -> None:
    file = edited(tmp_path, "seed_model.json", ('"text_len"', '"txt_len": 5, "text_len"'))
    _, report = import_files([file], allow_unknown=True)
    assert "predictor.text_len" in told(report, Verdict.UNKNOWN, "predictor.txt_len")


def test_other_dialects_are_refused_by_name(tmp_path: Path) -> None:
    flattened, accelerate = tmp_path / "qwen.yaml", tmp_path / "accelerate.yaml"
    flattened.write_text("gpt_args:\n  lr: 1e-5\n", "utf-8")
    accelerate.write_text("compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\n", "utf-8")
    assert "gpt_args dialect" in refusals(flattened)
    assert "accelerate" in refusals(accelerate)


def test_two_files_of_a_kind_are_two_runs(tmp_path: Path) -> None:
    other = tmp_path / "low.json"
    other.write_text((DATA / "seed_model.json").read_text("utf-8"), "utf-8")
    assert "one run at a time" in refusals(DATA / "seed_model.json", other)


def test_a_native_yaml_is_a_run_of_its_own(tmp_path: Path) -> None:
    for other in ("seed_model.json", "data.json", "fsdp2_config.yaml", "inference_model.json"):
        text = refusals(DATA / other, DATA / "native.yaml")
        assert f"{other}: is a " in text and "native.yaml holds all of its run" in text
    spec, _ = import_files([DATA / "native.yaml"])
    assert isinstance(spec, TrainSpec)


def test_a_script_that_says_nothing_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "pretrain.sh"
    script.write_text("#!/bin/bash\nmkdir logs\n", "utf-8")
    assert "pretrain.sh:1: sets no variable and launches nothing" in refusals(script)


def test_a_flag_given_twice_is_a_conflict_only_where_it_says_two_things(tmp_path: Path) -> None:
    twice = edited(tmp_path, "seed_pretrain_high.sh", ("--clip-grad 1.0", "--clip-grad 1.0 --clip-grad 1.0"))
    _, report = import_files([DATA / "seed_model.json", twice])
    assert "again" in told(report, Verdict.DERIVED, "--clip-grad")
    other = edited(tmp_path, "seed_pretrain_high.sh", ("--clip-grad 1.0", "--clip-grad 0.5 --clip-grad 1.0"))
    spec, report = import_files([DATA / "seed_model.json", other])
    assert isinstance(spec, TrainSpec) and spec.optim.max_grad_norm == 1.0
    assert "the last one holds" in told(report, Verdict.CONFLICT, "--clip-grad")


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


@pytest.mark.parametrize("value", ['"wandit"', "5", "true", "[1, 2]"])
def test_a_value_in_the_place_of_a_group_is_refused(tmp_path: Path, value: str) -> None:
    text = refusals(edited(tmp_path, "seed_model.json", ('"task": "t2v"', f'"task": "t2v", "dpo": {value}')))
    assert "seed_model.json:4: dpo is " in text and "a group" in text


def test_muon_has_its_own_flags(tmp_path: Path) -> None:
    muon = ("--clip-grad 1.0", "--clip-grad 1.0 --optimizer muon --ns-steps 3 --muon-momentum 0.9")
    spec, report = import_files([DATA / "seed_model.json", edited(tmp_path, "seed_pretrain_high.sh", muon)])
    assert isinstance(spec, TrainSpec)
    assert spec.optim == MuonSpec(lr=1e-5, momentum=0.9, newton_schulz_steps=3, weight_decay=0.01)
    assert told(report, Verdict.DEFAULT, "--matched-adamw-rms") == "optim.matched_adamw_rms = 0.2"
    adam = ("--clip-grad 1.0", "--clip-grad 1.0 --ns-steps 3")
    _, report = import_files([DATA / "seed_model.json", edited(tmp_path, "seed_pretrain_high.sh", adam)])
    assert "only --optimizer muon" in told(report, Verdict.DEAD, "--ns-steps")


def test_two_weights_to_start_from_are_a_conflict(tmp_path: Path) -> None:
    both = ("--clip-grad 1.0", "--clip-grad 1.0 --load-base-model ckpt/base")
    _, report = import_files([DATA / "seed_model.json", edited(tmp_path, "seed_pretrain_high.sh", both)])
    (text,) = [one.text for one in report.of(Verdict.CONFLICT) if one.key in ("--load", "--load-base-model")]
    assert "names the weights that a run starts from" in text


def test_keys_that_no_example_gives_are_known_too(tmp_path: Path) -> None:
    """Keys of MindSpeed-MM's classes on Wan's path, first at values that change nothing."""
    same = (
        '"load_video_features"',
        '"enable_encoder_dp": true, "lora_apply_modules": ["predictor"], "load_video_features"',
    )
    network = ('"text_len"', '"fa_layout": "bnsd", "vae_scale_factor": [4, 8, 8], "text_len"')
    _, report = import_files([edited(tmp_path, "seed_model.json", same, network)])
    assert "lora.targets" in told(report, Verdict.DERIVED, "lora_apply_modules")
    assert "kernel" in told(report, Verdict.DERIVED, "predictor.fa_layout")
    other = ('"load_video_features"', '"lora_mixed_training": true, "load_video_features"')
    assert "lora_mixed_training is true" in refusals(edited(tmp_path, "seed_model.json", other))


def test_a_training_alone_with_its_script_has_the_network_of_our_experiment() -> None:
    spec, report = trained("seed_pretrain_high.sh")
    assert spec.model == wan22_high.SPEC.model and spec.expert is Expert.HIGH_NOISE
    assert "wan22_high" in told(report, Verdict.DEFAULT, "model.json")
