"""Small trainings on real rendered clips."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import tiny_high
from mm_config import dump, replace
from mm_config.options.run_options import RunOptions
from mm_config.specs import MixturePart, MixtureSpec, ShapesSpec
from mm_config.specs.data import BucketSpec, Cache
from mm_config.specs.train import TrainSpec
from tests.forked_ranks import run_ranks as run_ranks

SMALL: dict[str, Any] = {
    "model.hidden_size": 32,
    "model.num_attention_heads": 2,
    "model.ffn_dim": 64,
    "model.num_layers": 2,
    "model.patch_size": (1, 2, 2),
    "data.dataset.clips_per_caption": 1,
    "data.batch_size": 8,
    "data.cache": Cache.LATENTS,
    "optim.lr": 5e-3,
    "schedule.steps": 20,
    "schedule.warmup_steps": 5,
    "runtime.device": "cpu",
}

EXPERIMENT = '''"""Trains the spec that lies beside this file."""

from pathlib import Path

import torch

from mm_config import load, main

if __name__ == "__main__":
    torch.set_num_threads(1)
    main(load(Path(__file__).with_suffix(".json")))
'''

COUNTED = """import hashlib
import os
from pathlib import Path

digest = hashlib.file_digest


def counted(file, *rest):
    if file.name.endswith(".mp4"):
        with Path(__file__).with_suffix(".hashed").open("a") as log:
            log.write(os.environ["RANK"])
    return digest(file, *rest)


hashlib.file_digest = counted
"""
"""Makes an experiment file write down which rank hashes a clip."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small are no faster on two threads, and far slower where the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all runs, so that clips are rendered and encoded once."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def options(runs_dir: Path) -> RunOptions:
    return RunOptions(runs_dir=runs_dir)


@pytest.fixture
def small(request: pytest.FixtureRequest) -> TrainSpec:
    """A spec whose runs carry the test's name."""
    return replace(tiny_high.SPEC, {**SMALL, "name": request.node.name.partition("[")[0]})


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[[TrainSpec], Path]:
    """Makes an experiment file of a spec, to be run in a process of its own."""

    def write(spec: TrainSpec) -> Path:
        file = tmp_path / f"{spec.name}.py"
        file.write_text(EXPERIMENT)
        dump(spec, file.with_suffix(".json"))
        return file

    return write


@pytest.fixture
def metrics_of() -> Callable[[Path], list[dict[str, Any]]]:
    """Reads metrics.jsonl of a run folder."""
    return lambda run_dir: [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def losses_of(metrics_of: Callable[[Path], list[dict[str, Any]]]) -> Callable[[Path], list[float]]:
    """Reads the losses of a run folder, in the order in which they were logged."""
    return lambda run_dir: [line["loss"] for line in metrics_of(run_dir) if "loss" in line]


@pytest.fixture
def count_hashes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Makes an experiment file note its rank for each clip that it hashes; no digest is remembered."""

    def count(file: Path) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
        file.write_text(COUNTED + file.read_text())
        return file.with_suffix(".hashed")

    return count


LARGE_SHAPES = ShapesSpec(clips_per_caption=1)
SMALL_SHAPES = ShapesSpec(clips_per_caption=2, size=32, num_frames=9)


@pytest.fixture
def mixed(small: TrainSpec) -> TrainSpec:
    """Clips of 17 frames of 64x64 and of 9 of 32x32, one to one, in batches of 4 and of 8; 6 steps."""
    buckets = tuple(
        BucketSpec(num_frames=frames, height=size, width=size, batch_size=batch)
        for frames, size, batch in ((17, 64, 4), (9, 32, 8))
    )
    parts = tuple(MixturePart(dataset=dataset) for dataset in (LARGE_SHAPES, SMALL_SHAPES))
    changes = {
        "data.dataset": MixtureSpec(parts=parts),
        "data.buckets": buckets,
        "data.cache": Cache.NONE,
        "schedule.steps": 6,
    }
    return replace(small, changes)
