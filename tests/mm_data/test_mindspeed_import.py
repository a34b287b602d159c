"""Clips as MindSpeed-MM's published steps make them, beside those that an imported data.json delivers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import mm_data
from mm_config import replace
from mm_config.importing.mindspeed.importer import import_files
from mm_config.specs.train import TrainSpec
from tests.mm_config.importing.mindspeed_small import clips, written
from tests.mm_data.test_mindspeed_frames import chain, decoded, dynamic_size, moving

HEIGHT, WIDTH, FRAMES, MOST = 96, 160, 5, 96 * 160
SIZES = [
    *((96, 160), (160, 96), (144, 256), (256, 144), (98, 130), (64, 96), (96, 64), (120, 120), (180, 320)),
    *((72, 128), (128, 72), (200, 200), (90, 160), (110, 190), (100, 220), (66, 66), (240, 136)),
    *((40, 64), (32, 200), (48, 64)),
]


def is_kept(height: int, width: int) -> bool:
    """`select_valid_data`: the size after `maxhwresize`, its least area, its aspect ratio."""
    height, width = dynamic_size(height, width, MOST, 8)
    return height * width >= MOST // 4 and max(height / width, width / height) <= 5.0


@pytest.mark.parametrize("antialias", [False, True])
def test_an_imported_datas_clips_are_those_of_its_chain(tmp_path: Path, antialias: bool) -> None:
    steps = [
        {
            "trans_type": "ResizeVideo",
            "param": {"transform_size": "auto", "mode": "shortside", "antialias": antialias},
        },
        {"trans_type": "ToTensorVideo"},
        {"trans_type": "norm_fun", "param": {"mean": 0.5, "std": 0.5}},
        {"trans_type": "CenterCropResizeVideo", "param": {"transform_size": "auto"}},
    ]
    sizes = {"max_height": HEIGHT, "max_width": WIDTH, "max_hxw": MOST}
    tree = clips(num_frames=FRAMES, cfg=0.0, train_pipeline={"video": steps}, **sizes)
    spec, _ = import_files(written(tmp_path, data__json=tree))
    assert isinstance(spec, TrainSpec)
    folder = tmp_path / "clips"
    folder.mkdir()
    files = [moving(folder / f"{number}.mp4", *size) for number, size in enumerate(SIZES)]
    lines = [json.dumps({"path": file.name, "caption": "a"}) for file in files]
    (folder / "manifest.jsonl").write_text("\n".join(lines), "utf-8")
    data = replace(spec, {"data.dataset.path": str(folder / "manifest.jsonl"), "data.batch_size": 1}).data
    dataset = mm_data.prepare(data.dataset, cache_dir=tmp_path / "cache")
    kept = [number for number, size in enumerate(SIZES) if is_kept(*size)]
    stream = mm_data.stream(data, dataset, seed=0, end_step=len(kept), workers=0)
    seen: dict[int, int] = {}
    for batch in stream:
        index, clip = batch.indices[0], batch.items[0].frames
        frames = torch.from_numpy(decoded(files[index]))
        ours = mm_data.to_model_range(clip)
        starts = range(len(frames) - FRAMES + 1)
        windows = (chain(frames[start : start + FRAMES], (HEIGHT, WIDTH), antialias) for start in starts)
        apart = [float((ours - window).abs().max()) / 2 for window in windows]
        seen[index] = int(np.argmin(apart))
        assert min(apart) <= 1 / 255 + 1e-6, SIZES[index]
    assert sorted(seen) == kept and len(kept) == len(SIZES) - 3
    assert len(set(seen.values())) > 2
