"""Parts that wait, a text encoder, and an autoencoder whole and in tiles: on the device as on the CPU."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.specs.serving import Residency, ResidencySpec
from mm_infer import load
from tests.mm_infer.residents import BLOCKS, spec_of, written
from tests.npu_standin.parity import assert_equal
from tests.npu_standin.two_makers import made, tiled

RESIDENT, SWAP, LAYERWISE = Residency.RESIDENT, Residency.SWAP, Residency.LAYERWISE
RESIDENCIES = [
    ResidencySpec(experts=RESIDENT, encoders=SWAP),
    ResidencySpec(experts=SWAP, encoders=RESIDENT),
    ResidencySpec(experts=SWAP, encoders=SWAP),
    ResidencySpec(experts=SWAP, encoders=SWAP, pin_memory=False),
    ResidencySpec(experts=LAYERWISE, encoders=SWAP, share=0.5, prefetch=0),
    ResidencySpec(experts=LAYERWISE, encoders=SWAP),
    ResidencySpec(experts=LAYERWISE, encoders=SWAP, pin_memory=False),
    ResidencySpec(experts=SWAP, encoders=LAYERWISE),
    ResidencySpec(experts=LAYERWISE, encoders=LAYERWISE, pin_memory=False),
]
Made = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    """Weights of two experts, UMT5 and Wan's autoencoder."""
    return written(spec_of(), tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def by_cpu(options: RunOptions) -> Made:
    return made(spec_of(), options)


@pytest.fixture(scope="module")
def resident(options: RunOptions) -> Made:
    return made(spec_of(runtime__device="npu"), options)


def test_a_resident_generation_makes_the_latents_of_the_cpu(by_cpu: Made, resident: Made) -> None:
    assert_equal(resident["latents"], by_cpu["latents"])
    # What differs between latents, an autoencoder of drawn weights makes more of.
    assert float((resident["frames"] - by_cpu["frames"]).abs().max()) <= 1e-5


@pytest.mark.parametrize("residency", RESIDENCIES, ids=str)
def test_parts_that_wait_make_it_to_the_last_bit(
    npu_calls: Counter[str], options: RunOptions, resident: Made, residency: ResidencySpec
) -> None:
    found = made(spec_of(runtime__device="npu", runtime__residency=residency), options)
    assert npu_calls["npu_fusion_attention"] == 2 * 2 * BLOCKS * 4, "two videos of four steps"
    for name, expected in resident.items():
        assert torch.equal(found[name], expected), name


@pytest.mark.parametrize("in_tiles", [False, True])
def test_latents_are_decoded_as_by_the_cpu(options: RunOptions, by_cpu: Made, in_tiles: bool) -> None:
    spec = replace(tiled(), "autoencoder.tiling", in_tiles)
    latents = by_cpu["latents"].repeat(1, 1, 1, 2, 2)
    actual, expected = (
        load(replace(spec, "runtime.device", device), options).decode(latents) for device in ("npu", "cpu")
    )
    assert actual.shape[-2:] == (64, 64)
    assert_equal(actual, expected)
