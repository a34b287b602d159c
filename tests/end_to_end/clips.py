"""A small data set under a manifest, and what runs over it are made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mm_config.content import Input
from mm_config.runs import read_inputs
from mm_data import write_mp4

DATA = "spec.data.dataset"
SMALL: dict[str, Any] = {
    "model.hidden_size": 32,
    "model.num_attention_heads": 2,
    "model.ffn_dim": 48,
    "model.num_layers": 1,
    "runtime.device": "cpu",
}


def fill(folder: Path, content: int) -> None:
    """Four clips; of each later content b.mp4 has other frames and c.mp4 another caption."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rows = []
    for index, name in enumerate("abcd"):
        seed = 10 * content if name == "b" else index
        frames = np.random.default_rng(seed).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
        write_mp4(folder / f"{name}.mp4", frames, fps=8)
        caption = f"a red square {content if name == 'c' else ''}".strip()
        rows.append({"path": f"{name}.mp4", "caption": caption})
    write_manifest(folder, rows)


def write_manifest(folder: Path, rows: list[dict[str, Any]], **written: Any) -> None:
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row, **written) + "\n" for row in rows))


def manifest_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def inputs_of(folder: Path) -> dict[str, Input]:
    found = read_inputs(folder)
    assert found is not None
    return found
