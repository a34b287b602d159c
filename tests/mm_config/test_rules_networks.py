"""Rules between a network and its encoders, inside the encoders, and on what a request gives."""

from typing import Any

import pytest

from mm_config import exact_hash, problems, replace
from mm_config.families import wan21, wan22
from mm_config.rules import request_problems
from mm_config.schema.errors import SpecError
from mm_config.specs.data import BucketSpec
from mm_config.specs.datasets import MixturePart, MixtureSpec, ShapesScorerSpec, ShapesSpec
from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import ClipImageEncoderSpec, WanAutoencoderSpec
from mm_config.specs.kinds import Conditioning
from mm_config.specs.requests import GenerationRequest, SamplesSpec
from mm_config.specs.weights import RandomWeights
from tests.mm_config.breaking import (
    TRAIN,
    WAN_1_3B,
    WAN_5B,
    WAN_FLF2V,
    WAN_HIGH,
    WAN_I2V,
    WAN_SINGLE,
    WAN_T2V,
    found,
    only,
)

CLIP = ClipImageEncoderSpec(weights=RandomWeights())
SHORT = {"data.min_num_frames": 1, "data.drop_short_share": 0.5}
STILLS = BucketSpec(num_frames=1, height=480, width=832, batch_size=8)
I2V = wan22.I2V_A14B.infer()
FLF2V = wan21.FLF2V_14B.infer()
TI2V = wan22.TI2V_5B.infer()


def test_the_network_fits_its_encoders() -> None:
    assert found(TRAIN, {"model.in_channels": 7, "model.out_channels": 8, "model.text_dim": 7}) == {
        "spec.model.in_channels": "is 7, but spec.autoencoder.latent_channels is "
        f"{TRAIN.autoencoder.latent_channels}; make them equal",
        "spec.model.out_channels": "is 8, but spec.autoencoder.latent_channels is "
        f"{TRAIN.autoencoder.latent_channels}; make them equal",
        "spec.model.text_dim": f"is 7, but spec.text_encoder.text_dim is {TRAIN.text_encoder.text_dim}; "
        "make them equal",
    }


def test_given_frames_come_as_further_channels() -> None:
    part = "needs 36: 16 noisy, 4 of the mask, 16 given"
    only(WAN_I2V, {"model.in_channels": 16}, "model.in_channels", "conditioning first_frame", part)
    only(WAN_FLF2V, {"model.in_channels": 33}, "model.in_channels", "first_and_last_frame", part)
    only(WAN_1_3B, {"model.in_channels": 36}, "model.in_channels", "latent_channels is 16; make them equal")
    only(WAN_5B, {"model.in_channels": 16}, "model.in_channels", "latent_channels is 48; make them equal")


def test_a_clean_first_frame_has_tokens_of_its_own() -> None:
    changes = {"model.patch_size": (2, 2, 2), "data.num_frames": 85}
    only(WAN_5B, changes, "model.patch_size.0", "is 2", "set it to 1")


def test_a_training_can_do_without_a_clean_first_frame_alone_and_has_more_frames_than_are_given() -> None:
    assert found(WAN_5B, {"data.frame_dropout": 0.5}) == {}
    for spec, given in ((WAN_I2V, "first_frame"), (WAN_1_3B, "text")):
        part = f"is 0.5, but only conditioning clean_first_frame does without its frame; this is {given}"
        only(spec, {"data.frame_dropout": 0.5}, "data.frame_dropout", part)
    nothing = "1 frame leaves nothing to make where clean_first_frame is given; at least 5"
    only(WAN_5B, {"data.num_frames": 1}, "data.num_frames", nothing)
    only(WAN_5B, SHORT, "data.min_num_frames", nothing)
    only(WAN_5B, {"data.buckets": (STILLS,)}, "data.buckets.0.num_frames", nothing)
    assert found(WAN_5B, {"data.num_frames": 1, "data.frame_dropout": 1.0}) == {}
    assert found(WAN_1_3B, SHORT) == {}
    only(WAN_I2V, SHORT, "data.min_num_frames", "where first_frame is given")
    only(WAN_I2V, {"data.num_frames": 1}, "data.num_frames", "1 frame leaves nothing to make")


def test_an_image_branch_and_an_image_encoder_go_together() -> None:
    only(WAN_1_3B, {"image_encoder": CLIP}, "image_encoder", "spec.model.image_dim is None", "set it to None")
    only(WAN_I2V, {"image_encoder": None}, "image_encoder", "is missing, but spec.model.image_dim 1280")
    only(
        WAN_I2V,
        {"model.image_dim": 768},
        "model.image_dim",
        "spec.image_encoder.image_dim is 1280; make them",
    )
    only(WAN_HIGH, {"model.image_dim": 1280, "image_encoder": CLIP}, "model.image_dim", "conditioning text")
    assert found(WAN_I2V, {"model.image_dim": None, "image_encoder": None}) == {}


def test_image_positions_are_those_of_all_images() -> None:
    assert found(WAN_FLF2V, {"model.image_positions": None}) == {}
    only(WAN_FLF2V, {"model.image_positions": 257}, "model.image_positions", "2 x 257 tokens", "make 514")
    only(WAN_I2V, {"model.image_positions": 514}, "model.image_positions", "1 x 257 tokens", "make 257")


@pytest.mark.parametrize(
    ("changes", "path", "part"),
    [
        ({"model.num_attention_heads": 5}, "num_attention_heads", "do not divide hidden_size 192; nearest"),
        ({"model.num_attention_heads": 64}, "num_attention_heads", "head width 3 must be even"),
        ({"model.num_attention_heads": 48}, "num_attention_heads", "head width 4 is below 6"),
        ({"model.freq_dim": 63}, "freq_dim", "must be even"),
    ],
)
def test_heads_and_rotary_positions(changes: dict[str, Any], path: str, part: str) -> None:
    assert part in found(TRAIN, changes)[f"spec.model.{path}"]


@pytest.mark.parametrize("name", ["num_layers", "hidden_size", "num_attention_heads"])
def test_absurd_sizes_are_refused_before_names_are_made_of_them(name: str) -> None:
    with pytest.raises(SpecError, match=f"spec.model.{name}: must be <= "):
        replace(WAN_1_3B, f"model.{name}", 10**9)


def test_stages_of_the_autoencoder() -> None:
    channels = TRAIN.autoencoder.latent_channels
    autoencoder = WanAutoencoderSpec(weights=RandomWeights(), latent_channels=channels)
    base = replace(TRAIN, "autoencoder", autoencoder)
    assert found(base, {"autoencoder.temporal_downsample": (True,)}).keys() == {
        "spec.autoencoder.temporal_downsample"
    }
    assert found(base, {"autoencoder.temporal_downsample": (True, False, False)}) == {
        "spec.autoencoder.temporal_stride": "is 4, but temporal_downsample makes it 2"
    }


def test_the_spatial_stride_follows_from_patches_and_stages() -> None:
    only(WAN_1_3B, {"autoencoder.patch_size": 2}, "autoencoder.spatial_stride", "is 8", "make it 16")
    only(WAN_5B, {"autoencoder.patch_size": 1}, "autoencoder.spatial_stride", "is 16", "make it 8")


def test_tiles_are_whole_cells_without_gaps() -> None:
    tiled = {"autoencoder.tiling": True}
    assert found(WAN_1_3B, tiled) == found(WAN_5B, tiled) == {}
    size = {**tiled, "autoencoder.tile_size": (256, 260)}
    only(WAN_1_3B, size, "autoencoder.tile_size.1", "no multiple of 8; nearest: 256 or 264")
    stride = {**tiled, "autoencoder.tile_stride": (264, 192)}
    only(WAN_1_3B, stride, "autoencoder.tile_stride.0", "is 264, above tile_size 256: tiles would leave gaps")


def test_cells_have_no_more_coefficients_than_values() -> None:
    changes = {"autoencoder.spatial_stride": 2, "model.in_channels": 49, "model.out_channels": 49}
    assert found(TRAIN, {**changes, "autoencoder.latent_channels": 49}) == {
        "spec.autoencoder.latent_channels": "is 49, but a cell of 4 frames of 2x2 pixels has 48 coefficients"
    }


def test_sizes_of_the_image_encoder() -> None:
    only(WAN_I2V, {"image_encoder.image_size": 225}, "image_encoder.image_size", "nearest: 224 or 238")
    only(WAN_I2V, {"image_encoder.num_heads": 15}, "image_encoder.num_heads", "nearest: 10 or 16")


def test_the_text_encoder_leaves_the_range_of_float16() -> None:
    changes = {"text_encoder.dtype": Dtype.FLOAT16}
    only(WAN_1_3B, changes, "text_encoder.dtype", "choose bfloat16 or float32")
    assert found(WAN_I2V, {"image_encoder.dtype": Dtype.FLOAT16}) == {}


def asked(spec: Any, **fields: Any) -> dict[str, str]:
    request = GenerationRequest(**{"prompt": "a cat", **fields})
    return {problem.path: problem.message for problem in request_problems(request, spec)}


def test_a_request_gives_the_frames_that_the_network_wants() -> None:
    assert asked(WAN_T2V) == asked(TI2V) == asked(TI2V, image="a.png") == asked(I2V, image="a.png") == {}
    assert asked(FLF2V, image="a.png", last_image="b.png") == {}
    assert "conditioned on text alone" in asked(WAN_T2V, image="a.png")["image"]
    assert asked(I2V) == {"image": "is missing: conditioning first_frame needs the first frame"}
    assert asked(FLF2V).keys() == {"image", "last_image"}
    for spec in (I2V, TI2V):
        wrong = asked(spec, image="a.png", last_image="b.png")
        assert wrong.keys() == {"last_image"} and "first_and_last_frame" in wrong["last_image"]


def test_a_video_to_start_from_is_for_networks_of_text() -> None:
    assert asked(WAN_SINGLE, strength=0.5, video="a.mp4") == {}
    assert asked(WAN_SINGLE, strength=0.5) == {
        "video": "is missing: strength 0.5 needs a video to put noise on"
    }
    assert asked(WAN_SINGLE, video="a.mp4").keys() == {"strength"}
    assert asked(I2V, image="a.png", strength=0.5).keys() == {"strength"}
    assert asked(I2V, image="a.png", video="a.mp4").keys() == {"video"}


def test_samples_give_each_prompt_its_image() -> None:
    samples = SamplesSpec(prompts=("a cat", "a dog"), seeds=(1, 2), images=("cat.png", "dog.png"))
    assert found(I2V, {"samples": samples}) == found(TI2V, {"samples": samples}) == {}
    asked_for = [(request.prompt, request.image, request.seed) for request in samples.requests]
    assert asked_for == [
        ("a cat", "cat.png", 1),
        ("a cat", "cat.png", 2),
        ("a dog", "dog.png", 1),
        ("a dog", "dog.png", 2),
    ]
    both = replace(samples, "last_images", ("sofa.png", "door.png"))
    assert found(FLF2V, {"samples": both}) == {}
    assert [request.last_image for request in both.requests][::2] == ["sofa.png", "door.png"]
    only(WAN_T2V, {"samples": samples}, "samples.images", "a network that is given frames", "this is text")
    only(I2V, {"samples": both}, "samples.last_images", "first_and_last_frame", "this is first_frame")
    wanted = replace(samples, "wanted", ("a red circle moving up",))
    only(I2V, {"samples": wanted}, "samples.wanted", "only a scorer reads them; set samples.scorer")
    scored = replace(wanted, "scorer", ShapesScorerSpec())
    only(I2V, {"samples": scored}, "samples.wanted", "are 1 for 2 prompts; give one for each")
    fewer = {"samples": replace(samples, "images", ("cat.png",))}
    only(I2V, fewer, "samples.images", "are 1 for 2 prompts; give one for each")
    assert [request.image for request in fewer["samples"].requests] == ["cat.png", "cat.png", None, None]


def test_colours_of_shapes_are_known_and_stand_once() -> None:
    dataset = ShapesSpec(colours=("red", "purpel", "red"))
    assert found(TRAIN, {"data.dataset": dataset}) == {
        "spec.data.dataset.colours.1": "must be one of red, green, blue, yellow, purple, cyan, orange, "
        "white, got 'purpel'; did you mean purple?",
        "spec.data.dataset.colours.2": "'red' is listed twice",
    }
    broken = ShapesSpec(colours=("a\nb", "a\nb"))
    for problem in problems(replace(TRAIN, {"data.dataset": broken})):
        assert "\n" not in str(problem)
    mixed = MixtureSpec(parts=(MixturePart(dataset=dataset),))
    assert found(TRAIN, {"data.dataset": mixed}).keys() == {
        f"spec.data.dataset.parts.0.dataset.colours.{index}" for index in (1, 2)
    }


def test_images_of_samples_change_no_hash() -> None:
    samples = SamplesSpec(prompts=("a cat",), images=("here/cat.png",))
    there = replace(samples, "images", ("there/cat.png",))
    assert exact_hash(samples) == exact_hash(there) == exact_hash(replace(samples, "images", ()))


def test_a_request_has_a_legal_size_and_a_prompt() -> None:
    assert asked(WAN_T2V, num_frames=49, height=720, width=1280) == {}
    assert asked(WAN_T2V, num_frames=48, height=721, prompt=" ") == {
        "prompt": "must say something, got ' '",
        "num_frames": "48 frames are not of the form 4k+1; nearest: 45 or 49",
        "height": "721 pixels are no multiple of 16; nearest: 720 or 736",
    }
    assert asked(I2V, image="a.png", num_frames=1).keys() == {"num_frames"}
    assert I2V.model.conditioning is Conditioning.FIRST_FRAME
