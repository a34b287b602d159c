"""A run in MindSpeed-MM's files, imported, trained by the command that the report prints, and given back."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mm_config.cli.app import app
from mm_config.importing.mindspeed.importer import import_files
from tests.mm_config.importing.mindspeed_small import MODEL, changed, clips, written
from tests.mm_data.test_mindspeed_frames import moving

NETWORK = {
    "model_id": "wandit",
    "model_type": "t2v",
    "patch_size": [1, 2, 2],
    "in_dim": 16,
    "out_dim": 16,
    "hidden_size": 96,
    "ffn_dim": 128,
    "freq_dim": 64,
    "text_dim": 4096,
    "num_heads": 4,
    "num_layers": 2,
}
SHARDING = """sharding_size: auto
sub_modules_to_wrap:
  - predictor.blocks.{*}
param_dtype: fp32
reduce_dtype: fp32
"""
SCRIPT = """#!/bin/bash
source /usr/local/Ascend/cann/set_env.sh
NPUS_PER_NODE=2
MBS=1
GBS=$(($MBS*$NPUS_PER_NODE*2))
GPT_ARGS="
    --micro-batch-size ${MBS} \\
    --global-batch-size ${GBS} \\
    --num-workers 1 \\
    --lr 1e-3 \\
    --lr-decay-style constant \\
    --train-iters 3 \\
    --clip-grad 1.0 \\
    --log-interval 1 \\
    --save-interval 3 \\
    --use-torch-fsdp2 \\
    --fsdp2-config-path fsdp2.yaml
"
torchrun --nproc_per_node $NPUS_PER_NODE pretrain_sora.py $GPT_ARGS --save ./saved
"""
SWAPPED = """from imported import SPEC

from mm_config import main, replace
from mm_config.specs import DctAutoencoderSpec, HashedTextEncoderSpec

parts = {
    "autoencoder": DctAutoencoderSpec(latent_channels=9),
    "model.in_channels": 9,
    "model.out_channels": 9,
    "text_encoder": HashedTextEncoderSpec(text_dim=4096, max_tokens=8),
}
main(replace(SPEC, parts))
"""


@pytest.mark.slow
def test_an_imported_run_trains_on_two_ranks_and_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = {"max_height": 64, "max_width": 64, "max_hxw": 4096, "num_frames": 5, "min_hxw": 1024}
    data = changed(clips(**sizes), dataset_param__basic_parameters__data_path="./clips/data.txt")
    model = changed(MODEL, predictor=NETWORK)
    files = written(tmp_path, model__json=model, data__json=data, fsdp2__yaml=SHARDING, run__sh=SCRIPT)
    (tmp_path / "clips").mkdir()
    for number in range(8):
        moving(tmp_path / "clips" / f"{number}.mp4", 64, 96)
    lines = [json.dumps({"path": f"{number}.mp4", "caption": "waves"}) for number in range(8)]
    (tmp_path / "clips" / "manifest.jsonl").write_text("\n".join(lines), "utf-8")
    (tmp_path / "experiments").mkdir()
    out = "experiments/imported.py"
    assert app(["import", "mindspeed", *map(str, files), "--out", out]) == 0
    _, report = import_files(files)
    # The released encoders are 23 GB: small ones stand in, with their latents; all else is the import's.
    (tmp_path / "experiments" / "swapped.py").write_text(SWAPPED, "utf-8")
    words = shlex.split(report.command("experiments/swapped.py"))
    assert words[0] == "torchrun"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "experiments"}
    done = subprocess.run(
        [*launcher, *words[1:]], capture_output=True, text=True, env=environment, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (checkpoint,) = (tmp_path / "saved").rglob("step-00000003")
    assert app(["convert", str(checkpoint), "theirs", "--to", "mindspeed", "--heads", "4"]) == 0
    weights = torch.load("theirs/release/mp_rank_00/model_optim_rng.pt", weights_only=True)["model"]
    assert len(weights) > 20 and {tuple(value.shape) for value in weights.values()} >= {(96, 96), (128, 96)}
