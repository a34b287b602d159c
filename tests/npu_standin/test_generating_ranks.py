"""Two ranks that make one video on the device, over HCCL's name and gloo's wires."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from tests.mm_infer.residents import found_in, written
from tests.npu_standin.parity import assert_equal
from tests.npu_standin.test_ranks import TORCHRUN
from tests.npu_standin.two_makers import LAYOUTS, made, tiled

SCRIPT = Path(__file__).with_name("two_makers.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks left what they made."""
    folder = tmp_path_factory.mktemp("makers")
    written(tiled(), folder)
    done = subprocess.run([*TORCHRUN, str(SCRIPT), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, torch.Tensor]:
    """What the CPU makes of the same weights."""
    return made(tiled(), found_in(folder))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_ranks_make_the_video_of_the_cpu(
    folder: Path, expected: dict[str, torch.Tensor], layout: str, rank: int
) -> None:
    found = torch.load(folder / f"{layout}-{rank}.pt")
    assert_equal(found["latents"], expected["latents"])
    assert float((found["frames"] - expected["frames"]).abs().max()) <= 1e-5
