"""Encoders whose weights ranks share give what whole ones give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

import mm_train
from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs import Conditioning
from mm_config.specs.data import Cache
from mm_config.specs.encoders import ClipImageEncoderSpec, Umt5TextEncoderSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import ReleasedWeights
from mm_models import build_image_encoder, build_text_encoder
from mm_train.offloading import Resting, networks_of
from mm_train.sharding import shard_encoder
from tests import tiny_umt5
from tests.forked_ranks import RunRanks
from tests.tiny_clip import write_clip

Losses = Callable[[Path], list[float]]
CLIP = ClipImageEncoderSpec(
    weights=ReleasedWeights(name="clip"),
    image_dim=16,
    image_size=28,
    patch_size=14,
    num_layers=2,
    num_heads=2,
    d_ff=24,
)
SHARED = {
    "runtime.shard_encoders": True,
    "runtime.offload_encoders": True,
    "runtime.encode_ahead": 2,
}
OF_TEXT = {"encoder.final_layer_norm.weight"}
OF_IMAGES = {
    *("class_embedding", "patch_embedding.weight", "pre_layrnorm.weight", "pre_layrnorm.bias"),
    *("post_layernorm.weight", "post_layernorm.bias"),
}
"""What stays whole: no item of a list, and no embedding."""
CPU = torch.device("cpu")


@pytest.fixture
def here(tmp_path: Path, options: RunOptions) -> RunOptions:
    """Where a CLIP and a UMT5 with random weights lie."""
    torch.manual_seed(0)
    write_clip(tmp_path / "clip", layers=2)
    tiny_umt5.write_release(tmp_path / "umt5", WORDS)
    found = (Location("clip", tmp_path / "clip", "the test"), Location("tiny-umt5", tmp_path / "umt5", "it"))
    return attrs.evolve(options, locations=Locations(found))


WORDS = ["a", "red", "green", "blue", "square", "circle", "moves", "to", "the", "left", "right"]
TEXT: Umt5TextEncoderSpec = tiny_umt5.spec_of(WORDS, max_tokens=16)


@pytest.fixture
def encoding(small: TrainSpec) -> TrainSpec:
    """Encodes images and captions as they come, some of them dropped; two micro-batches a step and rank."""
    changes: dict[str, Any] = {
        "model.conditioning": Conditioning.FIRST_FRAME,
        "model.in_channels": 22,
        "model.image_dim": 16,
        "model.image_positions": 5,
        "model.text_dim": 16,
        "image_encoder": CLIP,
        "text_encoder": TEXT,
        "data.cache": Cache.NONE,
        "data.caption_dropout": 0.5,
        "runtime.micro_batch_size": 2,
        "schedule.steps": 3,
        "schedule.warmup_steps": 1,
    }
    return replace(small, changes)


def _losses_are_equal(rank: int, spec: TrainSpec, options: RunOptions, losses_of: Losses) -> None:
    ways = {"whole": {}, "shared": SHARED}
    found = [
        mm_train.train(replace(spec, {**changes, "name": name}), options).run_dir
        for name, changes in ways.items()
    ]
    if rank == 0:
        whole, shared = map(losses_of, found)
        assert len(set(whole)) == 3 and shared == whole


def test_a_training_is_the_same_whoever_holds_the_weights_of_its_encoders(
    encoding: TrainSpec, here: RunOptions, losses_of: Losses, run_ranks: RunRanks
) -> None:
    run_ranks(_losses_are_equal, encoding, here, losses_of)


def _features_are_equal(rank: int, options: RunOptions) -> None:
    images = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(rank))
    text, image = (
        build_text_encoder(TEXT, CPU, options.locations),
        build_image_encoder(CLIP, CPU, options.locations),
    )
    captions = [["a red square", ""], ["the circle moves to the left", "blue"]][rank]
    expected = text.encode(captions), image.encode(images)
    ranks = init_device_mesh("cpu", (dist.get_world_size(),))
    for offload, encoder, kept in ((False, text, OF_TEXT), (True, image, OF_IMAGES)):
        (network,) = networks_of(encoder)
        shard_encoder(network, ranks, CPU, offload)
        with Resting([encoder]).awake():
            found = text.encode(captions) if encoder is text else image.encode(images)
        assert torch.equal(found, expected[offload])
        split = [one for one in network.parameters() if isinstance(one, DTensor)]
        assert sum(one.to_local().numel() for one in split) < 0.6 * sum(one.numel() for one in split)
        whole = {name for name, one in network.named_parameters() if not isinstance(one, DTensor)}
        assert {name.rpartition("embeddings.")[2].removeprefix("vision_model.") for name in whole} == kept


def test_features_are_equal_and_no_rank_keeps_more_than_its_part(
    here: RunOptions, run_ranks: RunRanks
) -> None:
    run_ranks(_features_are_equal, here)
