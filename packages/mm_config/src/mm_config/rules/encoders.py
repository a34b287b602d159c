"""Rules inside autoencoders, text encoders and runtimes, and between them and the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mm_config.errors import Problem
from mm_config.rules.wording import one_of
from mm_config.specs.encoders import DctAutoencoderSpec, WanAutoencoderSpec
from mm_config.specs.infer import InferRuntimeSpec, InferSpec
from mm_config.specs.train import TrainRuntimeSpec, TrainSpec

DEVICES = ("auto", "cpu", "cuda", "npu")


def encoder_problems(spec: Any) -> Iterator[Problem]:
    """Rules of one nested spec on its own; yields nothing for classes that have none here."""
    if isinstance(spec, (TrainRuntimeSpec, InferRuntimeSpec)) and spec.device not in DEVICES:
        yield Problem("device", one_of(spec.device, DEVICES, {"gpu": "cuda", "ascend": "npu"}))
    if isinstance(spec, WanAutoencoderSpec):
        yield from _stage_problems(spec)
    if isinstance(spec, DctAutoencoderSpec):
        coefficients = 3 * spec.temporal_stride * spec.spatial_stride**2
        if spec.latent_channels > coefficients:
            yield Problem(
                "latent_channels",
                f"is {spec.latent_channels}, but a cell of {spec.temporal_stride} frames of "
                f"{spec.spatial_stride}x{spec.spatial_stride} pixels has {coefficients} coefficients",
            )


def joint_problems(spec: TrainSpec | InferSpec, path: str) -> Iterator[Problem]:
    """The network takes what the autoencoder and the text encoder give."""
    model, channels, text_dim = spec.model, spec.autoencoder.latent_channels, spec.text_encoder.text_dim
    for name, value in (("in_channels", model.in_channels), ("out_channels", model.out_channels)):
        if value != channels:
            yield Problem(
                f"model.{name}",
                f"is {value}, but {path}.autoencoder.latent_channels is {channels}; make them equal",
            )
    if model.text_dim != text_dim:
        yield Problem(
            "model.text_dim",
            f"is {model.text_dim}, but {path}.text_encoder.text_dim is {text_dim}; make them equal",
        )


def _stage_problems(spec: WanAutoencoderSpec) -> Iterator[Problem]:
    transitions = len(spec.dim_mult) - 1
    if len(spec.temporal_downsample) != transitions:
        yield Problem(
            "temporal_downsample",
            f"has {len(spec.temporal_downsample)} entries, but the {len(spec.dim_mult)} of dim_mult "
            f"need {transitions}, one per stage transition",
        )
        return
    stride = 2 ** sum(spec.temporal_downsample)
    if stride != spec.temporal_stride:
        yield Problem(
            "temporal_stride", f"is {spec.temporal_stride}, but temporal_downsample makes it {stride}"
        )
