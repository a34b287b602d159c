"""Files of MindSpeed-MM that were once read wrong, each reduced to what it says, and what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mm_config.cli.app import app
from mm_config.importing.mindspeed.importer import import_files
from mm_config.importing.report import Report
from mm_config.importing.verdict import Verdict
from mm_config.schema.evolve import get
from tests.mm_config.importing.mindspeed_files import refusals, told
from tests.mm_config.importing.mindspeed_small import (
    DATA,
    FLAGS,
    INFERENCE,
    MODEL,
    NETWORK,
    SMALL_NETWORK,
    changed,
    clips,
    launch,
    written,
)


def imported(folder: Path, **files: Any) -> tuple[Any, Report]:
    return import_files(written(folder, **files))


def shown(value: Any) -> Any:
    return getattr(value, "value", value)


FEATURES = changed(
    DATA,
    dataset_param__dataset_type="feature",
    dataset_param__preprocess_parameters={"num_frames": 81, "max_height": 480, "max_width": 832},
)
RECOMPUTED = (
    f"{FLAGS} --recompute-granularity full --recompute-method block --recompute-num-layers 33 "
    "--recompute-skip-core-attention --recompute-num-layers-skip-core-attention 7"
)
LAYERZERO = (
    "zero3_size: 8\ntransformer_layers:\n  - mindspeed_mm.models.predictor.dits.wan_dit.WanDiTBlock\n"
    "param_dtype: bf16\nreduce_dtype: fp32\n"
)
COSINE = FLAGS.replace("constant", "cosine --min-lr 1e-6")
BASEPATH = "BASEPATH=$(cd `dirname $0`; cd ../../../; pwd)\n"
CASES = {
    "a crop at the end of the chain gives all one size": (
        {"data__json": DATA},
        {"data.resize": "center_crop", "data.height": 480, "data.width": 832},
    ),
    "a part of a longer clip is drawn anew": ({"data__json": DATA}, {"data.start": "random"}),
    "the least size is a quarter of the most": ({"data__json": DATA}, {"data.min_pixels": 99840}),
    "the least size, written out": ({"data__json": clips(min_hxw=99000)}, {"data.min_pixels": 99000}),
    "shuffle is false": (
        {"data__json": changed(DATA, dataloader_param__shuffle=False)},
        {"data.order": "sequential"},
    ),
    "33 blocks whole and 7 without core attention of 40": (
        {"model__json": MODEL, "pretrain__sh": launch(RECOMPUTED)},
        {"recompute.mode": "full", "recompute.modules": ("blocks.*",)},
    ),
    "LayerZero's units": (
        {
            "model__json": MODEL,
            "zero__yaml": LAYERZERO,
            "pretrain__sh": launch(f"{FLAGS} --layerzero --layerzero-config zero.yaml"),
        },
        {"fsdp.wrap": ("blocks.*",), "fsdp.shard_size": 8},
    ),
    "frames of features": (
        {
            "model__json": changed(MODEL, load_video_features=True, load_text_features=True),
            "data__json": FEATURES,
        },
        {"data.num_frames": 81},
    ),
    "a ratio of decimals": (
        {"model__json": MODEL, "pretrain__sh": launch(COSINE)},
        {"schedule.final_ratio": 0.1},
    ),
    "a script's own folder": (
        {
            "model__json": MODEL,
            "pretrain__sh": launch(
                f"{FLAGS} --mm-model $BASEPATH/model.json", "$BASEPATH/pretrain_sora.py", BASEPATH
            ),
        },
        {"schedule.steps": 100},
    ),
    "guidance in turn, and diffusers' table": (
        {"inference_model__json": INFERENCE},
        {"runtime.guidance": "sequential", "sampler.sigmas": "diffusers"},
    ),
    "a program with a path before it": (
        {"inference_model__json": INFERENCE, "inference__sh": launch(FLAGS, "./inference_sora.py")},
        {"sampler.steps": 50, "runtime.parallel.data": 8},
    ),
    "a file of prompts": (
        {
            "inference_model__json": changed(INFERENCE, prompt="./prompts.txt"),
            "prompts__txt": "a red fox\n\nsnow\n",
        },
        {"samples.prompts": ("a red fox", "snow")},
    ),
    "a file of many prompts": (
        {
            "inference_model__json": changed(INFERENCE, prompt="prompts.txt"),
            "prompts__txt": "\n".join(map(str, range(101))),
        },
        {"samples.prompts": tuple(map(str, range(100)))},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_file_implies_is_in_the_spec(tmp_path: Path, case: str) -> None:
    files, expected = CASES[case]
    spec, _ = imported(tmp_path, **files)
    assert {path: shown(get(spec, path)) for path in expected} == expected


def test_a_missing_shuffle_is_the_files_order(tmp_path: Path) -> None:
    tree = changed(DATA)
    del tree["dataloader_param"]["shuffle"]
    spec, report = imported(tmp_path, data__json=tree)
    assert spec.data.order.value == "sequential"
    assert "sequential within each group" in told(report, Verdict.DEFAULT, "dataloader_param.shuffle")


@pytest.mark.parametrize(
    ("kind", "begins"),
    [
        ("t2v", "Bright tones, overexposed, static, blurred details"),
        ("flf2v", "Lens switching, lens shaking, bright tones"),
        ("wan2.2-t2v", "色调艳丽"),
    ],
)
def test_only_wan_2_2_has_the_chinese_negative_prompt(tmp_path: Path, kind: str, begins: str) -> None:
    network = {**SMALL_NETWORK, "model_type": kind, "in_dim": 36 if kind == "flf2v" else 16}
    spec, report = imported(tmp_path, inference_model__json=changed(INFERENCE, predictor=network))
    assert spec.negative_prompt.startswith(begins)
    keys = [entry.key for entry in report.of(Verdict.DEFAULT)]
    assert ("negative_prompt" in keys) is (kind != "wan2.2-t2v")


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (
            "./mindspeed_mm/tools/feature_extraction/get_wan_feature.py",
            "get_wan_feature.py extracts features",
        ),
        ("posttrain_sora_dpo.py", "posttrain_sora_dpo.py trains by preferences"),
        ("pretrain_vlm.py", "pretrain_vlm.py is no program of Wan's"),
    ],
)
def test_another_program_is_refused_by_its_name(tmp_path: Path, program: str, why: str) -> None:
    files = written(tmp_path, model__json=MODEL, data__json=DATA, run__sh=launch(FLAGS, program))
    assert refusals(*files).startswith(f"{tmp_path}/run.sh:2: {why}")


def test_another_model_is_told_in_one_line(tmp_path: Path) -> None:
    vace = {"model_id": "vace", "wan_dit": NETWORK, "vace_dit": {"in_dim": 96, "vace_layers": [0, 5]}}
    text = refusals(*written(tmp_path, model__json=changed(MODEL, task="vace", predictor=vace)))
    assert "VACE networks are not in our specs" in text and "\n" not in text


LOAD = 'LOAD_PATH="path to load your weight"\n'


@pytest.mark.parametrize("network", [NETWORK, {**SMALL_NETWORK, "model_type": "i2v", "in_dim": 36}])
@pytest.mark.parametrize("load", [LOAD, "LOAD_PATH=./your_path\n", "LOAD_PATH=/path/to/ckpt\n"])
def test_a_text_that_stands_for_a_path_is_open(tmp_path: Path, network: dict[str, Any], load: str) -> None:
    files = {"model__json": changed(MODEL, predictor=network)}
    script = launch(f"{FLAGS} --load $LOAD_PATH", before=load)
    _, report = imported(tmp_path, **files, pretrain__sh=script)
    assert "start_from is open" in told(report, Verdict.OPEN, "--load")
    assert "--location" not in report.flags


def test_a_misspelt_key_blames_no_other(tmp_path: Path) -> None:
    tree = clips(num_frmaes=49, video_reader_type="DecordVideo")
    del tree["dataset_param"]["preprocess_parameters"]["num_frames"]
    (line,) = refusals(*written(tmp_path, data__json=tree)).splitlines()
    assert "num_frmaes is 49" in line and "did you mean" in line


def test_two_damages_give_two_lines(tmp_path: Path) -> None:
    tree = changed(clips(cfg="x"), dataset_param__preprocess_parameters__hw_aspect_thr="y")
    lines = refusals(*written(tmp_path, data__json=tree)).splitlines()
    assert sorted(line.split(": ")[1].split(".")[-1].split(" ")[0] for line in lines) == [
        "cfg",
        "hw_aspect_thr",
    ]


NATIVE = """parallel:
  fully_shard_parallel_size: auto
model:
  model_id: wan2_2
  model_name_or_path: &CKPT Wan2.2-T2V-A14B-Diffusers
features:
  recompute: true
  recompute_plan: {apply_modules: ['predictor.blocks.{*}']}
training:
  micro_batch_size: 1
  lr: 1.0e-5
  train_iters: 100
  load: *CKPT
"""


def test_a_native_yaml_of_26_1_with_anchors_is_read(tmp_path: Path) -> None:
    spec, report = imported(tmp_path, wan__yaml=NATIVE)
    assert (spec.schedule.steps, spec.recompute.mode.value, spec.recompute.modules) == (
        100,
        "full",
        ("blocks.*",),
    )
    assert told(report, Verdict.MAPPED, "training.load").startswith(
        "start_from: Wan-AI/Wan2.2-T2V-A14B-Diffusers"
    )


@pytest.mark.parametrize("name", ["my-run.py", "26_0.py"])
def test_a_name_that_no_module_has_is_told_why(tmp_path: Path, name: str, capsys: Any) -> None:
    files = map(str, written(tmp_path, model__json=MODEL))
    assert app(["import", "mindspeed", *files, "--out", str(tmp_path / name)]) == 2
    assert "has letters, digits and _ and begins with no digit" in capsys.readouterr().err


def test_a_generation_without_prompts_is_run_by_mm_generate(tmp_path: Path) -> None:
    _, report = imported(tmp_path, inference_model__json=INFERENCE)
    assert "samples.prompts" in told(report, Verdict.OPEN, "prompt")
    assert report.command("x.py").startswith("mm generate x.py --prompt ")


def test_video_to_video_is_a_request(tmp_path: Path) -> None:
    given = changed(INFERENCE, prompt="a fox", video="./in.mp4", start_frame=0, num_frames=49, strength=0.7)
    _, report = imported(tmp_path, inference_model__json=given)
    words = "mm generate x.py --prompt 'a fox' --video ./in.mp4 --strength 0.7"
    assert report.command("x.py") == words
    assert "81" in told(report, Verdict.CONFLICT, "num_frames")


SHARDED = "sharding_size: 8\nsub_modules_to_wrap:\n  - predictor.blocks.{*}\nparam_dtype: bf16\n"


def test_the_plan_of_a_sharded_run_is_for_its_ranks(tmp_path: Path) -> None:
    flags = f"{FLAGS} --use-torch-fsdp2 --fsdp2-config-path fsdp2.yaml".replace(" --bf16", "")
    _, report = imported(tmp_path, model__json=MODEL, fsdp2__yaml=SHARDED, pretrain__sh=launch(flags))
    assert "plan it  mm plan x.py --world-size 8" in list(report.lines("x.py"))


def test_what_only_says_how_to_execute_never_stops_a_run(tmp_path: Path) -> None:
    from mm_config.rules.carried_out import refusals as cannot_run

    spec, _ = imported(tmp_path, data__json=changed(DATA, dataloader_param__pin_memory=True))
    assert spec.data.pin_memory and cannot_run(spec) == []


def test_a_key_given_twice_in_two_files_that_disagree_is_a_conflict(tmp_path: Path) -> None:
    given = changed(INFERENCE, pipeline_config__seed=7)
    script = launch(f"{FLAGS} --seed 9", "inference_sora.py")
    spec, report = imported(tmp_path, inference_model__json=given, inference__sh=script)
    assert spec.samples.seeds == (7,)
    assert "says samples.seeds.0 = 7, and that holds" in told(report, Verdict.CONFLICT, "--seed")


def test_no_order_among_the_readers_decides_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mm_config.importing.mindspeed import importer

    files = written(tmp_path, model__json=MODEL, data__json=DATA, pretrain__sh=launch(RECOMPUTED))
    spec, _ = import_files(files)
    monkeypatch.setattr(importer, "TRAINING", tuple(reversed(importer.TRAINING)))
    assert import_files(files)[0] == spec
