"""Keyed random numbers, and the choice of a device."""

import pytest
import torch

from mm_config.schema.errors import UserError
from mm_models import device
from mm_models.seeding import generator

GOLDEN = [0.4454327, -0.3338356, -0.0405095, 0.2980286]


def draw(*keys: int | str) -> list[float]:
    return torch.randn(4, generator=generator(*keys)).tolist()


def test_equal_keys_give_equal_numbers_whatever_was_drawn_before() -> None:
    first = draw(1, 2, "noise")
    torch.randn(100)
    assert draw(1, 2, "noise") == first


def test_different_keys_give_different_numbers() -> None:
    keys = [
        (1, 2, "noise"),
        (2, 1, "noise"),
        (1, 2, "sigma"),
        (12, "noise"),
        ("1", 2, "noise"),
        (1, "2", "noise"),
    ]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)


def test_keys_give_these_numbers_for_ever() -> None:
    assert draw(0, 0, 0, "noise") == pytest.approx(GOLDEN, abs=1e-6)


def test_seeds_of_64_bits_count_whole() -> None:
    assert draw(2**63 + 1) != draw(1)


def test_the_cpu_is_always_there() -> None:
    assert device.pick("cpu") == torch.device("cpu")
    assert device.pick("auto").type in {"cpu", "cuda", "npu", "mps", "xpu"}


def test_a_device_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(
        UserError, match=r"spec\.runtime\.device: device 'abacus' is not available here; .*auto, cpu"
    ):
        device.pick("abacus")
