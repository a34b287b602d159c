"""Rules on what a network sees beside noise: input channels, the image branch, what a request gives."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.rules.clips import frame_steps
from mm_config.schema.errors import Problem
from mm_config.specs.data import DataSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import AutoencoderSpec, Conditioning, ImageEncoderSpec, ModelSpec
from mm_config.specs.requests import GenerationRequest
from mm_config.specs.train import TrainSpec

IMAGES = {Conditioning.FIRST_FRAME: 1, Conditioning.FIRST_AND_LAST_FRAME: 2}
"""Frames that come as further input channels, with a mask, and through an image branch."""


def conditioning_problems(spec: TrainSpec | InferSpec, path: str) -> Iterator[Problem]:
    """The network's channels, patches and image branch fit the conditioning and the encoders.

    Args:
        spec: The training or inference spec.
        path: Where it stands, for messages that name a second field.
    """
    model, latents = spec.model, spec.autoencoder.latent_channels
    given = model.conditioning
    equal = f"but {path}.autoencoder.latent_channels is {latents}; make them equal"
    if given in IMAGES:
        # The latents of the given frames, and a mask with one channel for each frame of a latent frame.
        mask = spec.autoencoder.temporal_stride
        wanted = 2 * latents + mask
        if model.in_channels != wanted:
            yield Problem(
                "model.in_channels",
                f"is {model.in_channels}, but conditioning {given.value} needs {wanted}: {latents} noisy, "
                f"{mask} of the mask, {latents} given",
            )
    elif model.in_channels != latents:
        yield Problem("model.in_channels", f"is {model.in_channels}, {equal}")
    if model.out_channels != latents:
        yield Problem("model.out_channels", f"is {model.out_channels}, {equal}")
    if given is Conditioning.CLEAN_FIRST_FRAME and model.patch_size[0] != 1:
        yield Problem(
            "model.patch_size.0",
            f"is {model.patch_size[0]}, but a clean first frame has tokens of its own; set it to 1",
        )
    yield from _image_branch_problems(model, spec.image_encoder, path)


def given_problems(data: DataSpec, model: ModelSpec, autoencoder: AutoencoderSpec) -> Iterator[Problem]:
    """Clips have more frames than are given, which a share may do without; paths start inside the data."""
    given, clean = model.conditioning, model.conditioning is Conditioning.CLEAN_FIRST_FRAME
    if data.frame_dropout and not clean:
        yield Problem(
            "frame_dropout",
            f"is {data.frame_dropout}, but only conditioning clean_first_frame does without its frame; this "
            f"is {given.value}; set it to 0.0",
        )
    if given is Conditioning.TEXT or data.frame_dropout == 1:
        return
    lengths: dict[str, int | None] = {}
    if clean:  # Of the other networks clips of one frame are refused with all clips' sizes.
        lengths = {f"buckets.{at}.num_frames": one.num_frames for at, one in enumerate(data.buckets)}
        lengths = lengths or {"num_frames": data.num_frames}
    for path, frames in {**lengths, "min_num_frames": data.min_num_frames}.items():
        if frames == 1:
            least = sum(frame_steps(model, autoencoder))
            yield Problem(
                path, f"1 frame leaves nothing to make where {given.value} is given; at least {least}"
            )


def asked_problems(request: GenerationRequest, spec: InferSpec) -> Iterator[Problem]:
    """What is wrong with the prompt and the files of a request; paths start inside the request."""
    given = spec.model.conditioning
    if not request.prompt.strip():
        yield Problem("prompt", f"must say something, got {request.prompt!r}")
    if given is Conditioning.TEXT and request.image is not None:
        yield Problem("image", "is given, but this network is conditioned on text alone; leave it out")
    if given in IMAGES and request.image is None:
        yield Problem("image", f"is missing: conditioning {given.value} needs the first frame")
    if given is Conditioning.FIRST_AND_LAST_FRAME:
        if request.last_image is None:
            yield Problem("last_image", f"is missing: conditioning {given.value} needs the last frame")
    elif request.last_image is not None:
        yield Problem(
            "last_image",
            f"is given, but only conditioning first_and_last_frame takes it; this is {given.value}",
        )
    yield from _video_problems(request, given)
    if spec.feature_cache is not None and request.strength is not None:
        yield Problem(
            "strength",
            "leaves out first steps, which the guesses of spec.feature_cache come from; leave it out, or set "
            "the cache to None",
        )


def sample_problems(spec: InferSpec) -> Iterator[Problem]:
    """Each prompt says something, and has its own image where images are given, and its own wish where
    videos are measured by other texts; paths start in the spec.
    """
    samples, given = spec.samples, spec.model.conditioning
    for index, prompt in enumerate(samples.prompts):
        if not prompt.strip():
            yield Problem(f"samples.prompts.{index}", f"must say something, got {prompt!r}")
    takers = {
        "images": (
            samples.images,
            given is not Conditioning.TEXT,
            f"a network that is given frames takes them; this is {given.value}",
        ),
        "last_images": (
            samples.last_images,
            given is Conditioning.FIRST_AND_LAST_FRAME,
            f"conditioning first_and_last_frame takes them; this is {given.value}",
        ),
        "wanted": (samples.wanted, samples.scorer is not None, "a scorer reads them; set samples.scorer"),
    }
    for name, (texts, taken, taker) in takers.items():
        if texts and not taken:
            yield Problem(f"samples.{name}", f"are given, but only {taker}")
        elif texts and len(texts) != len(samples.prompts):
            yield Problem(
                f"samples.{name}",
                f"are {len(texts)} for {len(samples.prompts)} prompts; give one for each",
            )


def _video_problems(request: GenerationRequest, given: Conditioning) -> Iterator[Problem]:
    if request.strength is None and request.video is None:
        return
    if given is not Conditioning.TEXT:
        name = "video" if request.strength is None else "strength"
        yield Problem(
            name, f"is given, but only networks conditioned on text take a video; this is {given.value}"
        )
    elif request.video is None:
        yield Problem("video", f"is missing: strength {request.strength} needs a video to put noise on")
    elif request.strength is None:
        yield Problem("strength", "is missing: it says how much noise is put on the video, such as 0.7")


def _image_branch_problems(
    model: ModelSpec, encoder: ImageEncoderSpec | None, path: str
) -> Iterator[Problem]:
    images = IMAGES.get(model.conditioning)
    if model.image_dim is None:
        if encoder is not None:
            yield Problem(
                "image_encoder",
                f"is given, but {path}.model.image_dim is None: there is no image branch; set it to None",
            )
        return
    if images is None:
        yield Problem(
            "model.image_dim",
            f"is {model.image_dim}, but conditioning {model.conditioning.value} gives no frame to encode; "
            "set it to None",
        )
    if encoder is None:
        yield Problem("image_encoder", f"is missing, but {path}.model.image_dim {model.image_dim} needs one")
        return
    if encoder.image_dim != model.image_dim:
        yield Problem(
            "model.image_dim",
            f"is {model.image_dim}, but {path}.image_encoder.image_dim is {encoder.image_dim}; "
            "make them equal",
        )
    if images is not None and model.image_positions not in (None, images * encoder.image_tokens):
        yield Problem(
            "model.image_positions",
            f"is {model.image_positions}, but {images} x {encoder.image_tokens} tokens of "
            f"{path}.image_encoder make {images * encoder.image_tokens}",
        )
