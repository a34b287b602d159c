"""How much tensors differ, by numbers written down by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mm_config.schema import UserError
from mm_models.weights.measuring import largest_differences

NAN, INF = float("nan"), float("inf")


def written(path: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, path)
    return path


def test_the_largest_difference_is_a_share_of_the_largest_magnitude(tmp_path: Path) -> None:
    old = written(
        tmp_path / "a.safetensors",
        equal=torch.tensor([1.0, NAN, INF]),
        moved=torch.tensor([1.0, -4.0, 2.0]),
        signed=torch.tensor([8.0]),
        zero=torch.zeros(2),
        narrow=torch.tensor([256.0, 2.0], dtype=torch.bfloat16),
        counts=torch.tensor([3, 4]),
        broken=torch.tensor([2.0, 1.0]),
        reshaped=torch.zeros(2),
        empty=torch.zeros(0),
        gone=torch.zeros(1),
    )
    new = written(
        tmp_path / "b.safetensors",
        equal=torch.tensor([1.0, NAN, INF]),
        moved=torch.tensor([1.0, -5.0, 2.5]),
        signed=torch.tensor([-8.0]),
        zero=torch.tensor([0.0, -0.0]),
        narrow=torch.tensor([254.0, 2.0], dtype=torch.bfloat16),
        counts=torch.tensor([3, 5]),
        broken=torch.tensor([2.0, NAN]),
        reshaped=torch.zeros(3),
        empty=torch.zeros(0),
        come=torch.zeros(1),
    )
    assert largest_differences(old, new) == {
        "equal": 0.0,
        "moved": 1 / 5,
        "signed": 2.0,
        "zero": 0.0,
        "narrow": 2 / 256,
        "counts": 1 / 5,
        "broken": 1.0,
    }


def test_what_is_no_file_of_tensors_is_a_mistake(tmp_path: Path) -> None:
    old = written(tmp_path / "a.safetensors", a=torch.zeros(1))
    (tmp_path / "b.safetensors").write_text("nothing")
    for other in ("b.safetensors", "missing.safetensors"):
        with pytest.raises(UserError, match="can't be compared with"):
            largest_differences(old, tmp_path / other)
