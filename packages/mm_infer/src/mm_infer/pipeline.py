"""From an inference spec and prompts to frames: weights, text features, denoising, decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

import mm_data
import mm_models
from mm_config import rules
from mm_config.console.output import progress
from mm_config.options.run_options import RunOptions
from mm_config.running.trained_by import resolve_weights
from mm_config.schema.errors import Problem, UserError, concerning, prefixed
from mm_config.specs.diffusion import Expert
from mm_config.specs.encoders import HashedTextEncoderSpec
from mm_config.specs.infer import GenerationRequest, InferSpec
from mm_config.specs.kinds import Weights
from mm_config.specs.serving import GuidanceMode
from mm_config.specs.weights import RandomWeights, TrainedBy
from mm_infer.adapters import Adapters, add_adapters, check_adapters, load_adapters
from mm_infer.carried_out import check_carried_out
from mm_infer.denoise import denoise
from mm_infer.samplers import sigmas
from mm_models import device, seeding
from mm_models.dtypes import torch_dtype
from mm_models.loading import check as check_weights
from mm_models.ops.choosing import Ops, choose
from mm_models.releases import require_releases

PATH_OF = {
    Expert.HIGH_NOISE: "spec.high_noise",
    Expert.LOW_NOISE: "spec.low_noise",
    Expert.SINGLE: "spec.high_noise",
}
"""The field that says where an expert's weights come from."""


@attrs.frozen(eq=False)
class Video:
    """A generated video."""

    request: GenerationRequest
    """What was asked for."""
    frames: Tensor
    """`[T, H, W, 3]` in uint8, on the CPU."""


@attrs.frozen(eq=False)
class Pipeline:
    """Everything that generation needs, loaded."""

    spec: InferSpec
    device: torch.device
    networks: Mapping[Expert, nn.Module]
    autoencoder: Any
    text_encoder: Any


def generate(
    spec: InferSpec, requests: Sequence[GenerationRequest], *, options: RunOptions
) -> tuple[Video, ...]:
    """Makes one video per request, in their order.

    A video depends on its request and the spec, not on its neighbours in the batch nor on the device.

    Raises:
        UserError: The spec breaks a rule, weights are missing, or a prompt is blank or too long.
    """
    check(spec, requests)
    weights = resolve_experts(spec, options)
    return tuple(make_videos(load_pipeline(spec, weights, options), requests))


def check(spec: InferSpec, requests: Sequence[GenerationRequest]) -> None:
    """Refuses, before weights are trained or loaded, what is known to fail after it.

    Raises:
        UserError: The spec breaks a rule; or its sampler's table, its device or requests can't be used.
    """
    rules.check(spec)
    check_carried_out(spec, requests)
    check_all(
        lambda: sigmas(spec.sampler),
        lambda: ops_of(spec),
        lambda: _check_requests(spec, requests),
        lambda: _check_lengths(spec, requests),
    )


def ops_of(spec: InferSpec) -> Ops:
    """The forms of operations that the spec's device and number format get.

    Raises:
        UserError: The machine has no such device or no such attention.
    """
    return choose(device.pick(spec.runtime.device), spec.runtime.attention, torch_dtype(spec.dtype))


def check_all(*checks: Callable[[], object]) -> None:
    """Makes every check, then raises the problems of all that failed."""
    problems: list[Problem] = []
    for one in checks:
        try:
            one()
        except UserError as error:
            problems.extend(error.problems)
    if problems:
        raise UserError(problems)


def _check_requests(spec: InferSpec, requests: Sequence[GenerationRequest]) -> None:
    if not requests:
        raise UserError(Problem("spec.samples.prompts", "is empty: there is no video to make"))
    found = [
        problem
        for index, request in enumerate(requests)
        for problem in prefixed(rules.request_problems(request, spec), f"request {index}")
    ]
    if found:
        raise UserError(found)


def _check_lengths(spec: InferSpec, requests: Sequence[GenerationRequest]) -> None:
    """Texts too long for an encoder without weights; others know their tokens once they are loaded."""
    if isinstance(spec.text_encoder, HashedTextEncoderSpec):
        mm_models.build_text_encoder(spec.text_encoder).encode(_texts(spec, requests))


def expert_weights(spec: InferSpec) -> dict[Expert, Weights]:
    """Where each expert's weights come from: two experts if the spec has a boundary, else one network."""
    if spec.boundary is None:
        return {Expert.SINGLE: spec.high_noise}
    assert spec.low_noise is not None, "rules.check asks for low_noise where there is a boundary"
    return {Expert.HIGH_NOISE: spec.high_noise, Expert.LOW_NOISE: spec.low_noise}


def resolve_experts(spec: InferSpec, options: RunOptions) -> dict[Expert, Path | RandomWeights]:
    """Finds each expert's weights and adapters, training them first where the spec allows it.

    Raises:
        UserError: Weights are nowhere or an adapter can't be added to its expert, all reported together and
            before any training starts; or an expert's weights don't fit its network; or a training failed,
            after which no other is started.
    """
    wanted = expert_weights(spec)
    build = spec.runtime.build_missing
    buildable = [expert for expert, weights in wanted.items() if build and isinstance(weights, TrainedBy)]
    found: dict[Expert, Path | RandomWeights] = {}
    network = _on_meta(spec)

    def resolve(expert: Expert) -> None:
        found[expert] = resolve_weights(wanted[expert], options, build, path=PATH_OF[expert])

    check_all(
        *(partial(resolve, expert) for expert in wanted if expert not in buildable),
        partial(check_adapters, spec, options, network, buildable=False),
        partial(require_releases, _encoders(spec), options.locations),
    )
    for expert in buildable:
        resolve(expert)
    check_adapters(spec, options, network, buildable=True)

    def fits(expert: Expert, path: Path) -> None:
        with concerning(PATH_OF[expert]):
            check_weights(network, path)

    check_all(*(partial(fits, expert, path) for expert, path in found.items() if isinstance(path, Path)))
    return {expert: found[expert] for expert in wanted}


def _on_meta(spec: InferSpec) -> nn.Module:
    """The network of an expert, without memory."""
    return mm_models.build(spec.model, device="meta", ops=ops_of(spec))


def _encoders(spec: InferSpec) -> dict[str, Any]:
    return {
        "spec.autoencoder": spec.autoencoder,
        "spec.text_encoder": spec.text_encoder,
        "spec.image_encoder": spec.image_encoder,
    }


def load_pipeline(
    spec: InferSpec, weights: Mapping[Expert, Path | RandomWeights], options: RunOptions
) -> Pipeline:
    """Loads the experts with their adapters, the text encoder and the autoencoder onto the spec's device."""
    place = device.pick(spec.runtime.device)
    adapters = load_adapters(spec, options, _on_meta(spec))
    return Pipeline(
        spec=spec,
        device=place,
        networks={
            expert: _load_network(spec, source, place, adapters.get(expert))
            for expert, source in weights.items()
        },
        autoencoder=mm_models.build_autoencoder(spec.autoencoder, device=place, locations=options.locations),
        text_encoder=mm_models.build_text_encoder(
            spec.text_encoder, device=place, locations=options.locations
        ),
    )


def _load_network(
    spec: InferSpec, weights: Path | RandomWeights, place: torch.device, adapters: Adapters | None
) -> nn.Module:
    network = mm_models.build(spec.model, device=place, dtype=torch_dtype(spec.dtype), ops=ops_of(spec))
    if isinstance(weights, RandomWeights):
        mm_models.initialize(network, weights.seed)
    else:
        mm_models.load(network, weights)
    if adapters is not None:
        add_adapters(network, adapters)
    return network.eval().requires_grad_(False)


def make_videos(pipeline: Pipeline, requests: Sequence[GenerationRequest]) -> Iterator[Video]:
    """Makes one video per request, `runtime.batch_size` at a time, showing progress.

    The videos of a batch are handed on before the next batch begins, so that they can be kept.
    """
    size = pipeline.spec.runtime.batch_size
    batches = [requests[start : start + size] for start in range(0, len(requests), size)]
    title = f"generate {len(requests)} video{'s' if len(requests) > 1 else ''}"
    with progress(title, total=pipeline.spec.sampler.steps * len(batches), unit="step") as bar:
        for batch in batches:
            latents = make_latents(pipeline, batch, lambda expert: bar.advance(1))
            frames = mm_data.to_frames(decode(pipeline, latents))
            yield from (Video(request, one) for request, one in zip(batch, frames, strict=True))


@torch.inference_mode()
def make_latents(
    pipeline: Pipeline,
    requests: Sequence[GenerationRequest],
    on_step: Callable[[Expert], None] = lambda expert: None,
) -> Tensor:
    """Denoises one batch: latents `[B, C, T, H, W]` in float32 on the pipeline's device.

    Raises:
        UserError: They are not finite; such latents would decode to videos that look merely black.
    """
    spec = pipeline.spec
    features = _text_features(pipeline, requests)
    noise = torch.stack([noise_of(spec, request) for request in requests])
    latents = denoise(
        noise.to(pipeline.device),
        torch.stack([features[request.prompt] for request in requests]),
        torch.stack([features[_negative_prompt(spec, request)] for request in requests]),
        pipeline.networks,
        spec.sampler,
        spec.boundary,
        dtype=torch_dtype(spec.dtype),
        batched=spec.runtime.guidance is GuidanceMode.BATCHED,
        on_step=on_step,
    )
    if not bool(latents.isfinite().all()):
        raise UserError("the latents are not finite in the end; look at the weights, guidance and dtype")
    return latents


@torch.inference_mode()
def decode(pipeline: Pipeline, latents: Tensor) -> Tensor:
    """Latents `[B, C, T, H, W]` to video `[B, 3, T, H, W]` in [-1, 1], float32 on the CPU."""
    return pipeline.autoencoder.decode(latents).float().cpu()


def noise_of(spec: InferSpec, request: GenerationRequest) -> Tensor:
    """A request's first latents `[C, T, H, W]`: drawn on the CPU, equal on every device and in any batch."""
    shape = spec.autoencoder.latent_shape(spec.num_frames, spec.height, spec.width)
    generator = seeding.generator(request.seed, "latents")
    return torch.randn(spec.autoencoder.latent_channels, *shape, generator=generator)


def _text_features(pipeline: Pipeline, requests: Sequence[GenerationRequest]) -> dict[str, Tensor]:
    """Features `[L, D]` of each distinct text; those of "" are the unconditional ones."""
    texts = _texts(pipeline.spec, requests)
    return dict(zip(texts, pipeline.text_encoder.encode(texts), strict=True))


def _texts(spec: InferSpec, requests: Sequence[GenerationRequest]) -> list[str]:
    return sorted(
        {text for request in requests for text in (request.prompt, _negative_prompt(spec, request))}
    )


def _negative_prompt(spec: InferSpec, request: GenerationRequest) -> str:
    return request.negative_prompt or spec.negative_prompt
