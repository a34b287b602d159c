"""A folder of clips of which all is known beforehand, as an index: what an inspection must find."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from mm_data import Dataset, write_mp4
from mm_data.index.listed import LeftOut
from mm_data.index.table import IndexedRecords
from tests.mm_data.sources import index_of, listed

EVIL = "</td><script>document.title = 'taken'</script><img src=http://example.invalid/x onerror=alert(1)>"
MADE = (
    ("long.mp4", 40, 64, 96),
    ("wide.mp4", 20, 32, 128),
    ("short.mp4", 3, 64, 96),
    ("tall.mp4", 12, 96, 64),
)
"""Name, frames, height and width, at 8 frames/s."""


def moving(num_frames: int, height: int, width: int, seed: int) -> torch.Tensor:
    """Smooth noise that moves by 2 pixels per frame; `[T, H, W, 3]`."""
    blocks = np.random.default_rng(seed).integers(0, 255, (height // 8, (width + 2 * num_frames) // 8 + 1, 3))
    wall = np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)
    return torch.tensor(np.stack([wall[:, 2 * t : 2 * t + width] for t in range(num_frames)]))


def write_clips(folder: Path) -> None:
    """Four clips, a copy of the first, the first encoded anew, and a file that ends early."""
    for seed, (name, *shape) in enumerate(MADE):
        write_mp4(folder / name, moving(*shape, seed=seed), 8)
    shutil.copy(folder / "long.mp4", folder / "copy.mp4")
    write_mp4(folder / "again.mp4", moving(*MADE[0][1:], seed=0), 8, crf=36, preset="ultrafast")


def indexed(folder: Path) -> Dataset:
    """The clips in an index; the source has named two more, of which one could not be read."""
    root = folder / "clips"
    root.mkdir()
    write_clips(root)
    captions = {"long.mp4": EVIL, "wide.mp4": "一只猫 runs", "copy.mp4": "a red circle moving right"}
    names = [name for name, *_ in MADE] + ["copy.mp4", "again.mp4"]
    entries = [listed(root, name, captions.get(name, "a blue square")) for name in names]
    (root / "broken.mp4").write_bytes((root / "long.mp4").read_bytes()[:500])
    gone = LeftOut("gone.mp4", "list:9", "no such file")
    index_of(root, [*entries, gone, listed(root, "broken.mp4")], folder / "index")
    records = IndexedRecords(folder / "index")
    return Dataset(records.root, records, records.head.order_key)


def training(folder: Path, *lines: str) -> Path:
    """An experiment that trains on clips of a manifest, with further changes of `SPEC`."""
    write_clips(folder)
    captions = {"long.mp4": EVIL, "wide.mp4": "a wide one"}
    rows = [json.dumps({"path": name, "caption": text}) for name, text in captions.items()]
    (folder / "manifest.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    path = folder / "own_clips.py"
    text = (
        "from experiments import tiny_high",
        "from mm_config import replace",
        "from mm_config.specs import ManifestSpec",
        f"DATASET = ManifestSpec(name='own', path={str(folder / 'manifest.jsonl')!r})",
        "SPEC = replace(tiny_high.SPEC, {'data.dataset': DATASET, 'name': 'own clips'})",
        *lines,
    )
    path.write_text("\n".join(text) + "\n", "utf-8")
    return path
