"""What of MindSpeed-MM's files is refused, in conflict, or unknown: each with its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_config.importing.mindspeed.importer import import_files
from mm_config.importing.verdict import Verdict
from mm_config.specs.train import TrainSpec
from tests.mm_config.importing.mindspeed_files import DATA, edited, refusals, told


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


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("\nPP=1\n", "\nPP=2\n", "--pipeline-model-parallel-size is '2'"),
        ("--clip-grad 1.0", "--clip-grad 0.0", "--clip-grad: spec.optim.max_grad_norm"),
        ("--lr-decay-style constant", "--lr-decay-style inverse-square-root", "--lr-decay-style is"),
        ("--num-workers 8", "--num-workers 0", "--num-workers is '0'"),
        (
            "\nPP=1\n",
            "\nPP=1\nexport HCCL_DFS_CONFIG=$(hostname)\n",
            "HCCL_DFS_CONFIG is '$(hostname)': only a run",
        ),
        ("\nMBS=1\n", "\nif true; then\nMBS=2\nfi\n", "line 24, which is not read, may set MBS"),
        ("\nMBS=1\n", "\nMBS=x\n", "$((x*1*8)): arithmetic needs whole numbers, got x"),
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


@pytest.mark.parametrize("value", ['"wandit"', "5", "true", "[1, 2]"])
def test_a_value_in_the_place_of_a_group_is_refused(tmp_path: Path, value: str) -> None:
    text = refusals(edited(tmp_path, "seed_model.json", ('"task": "t2v"', f'"task": "t2v", "dpo": {value}')))
    assert "seed_model.json:4: dpo is " in text and "a group" in text


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
