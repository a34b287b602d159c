"""A loaded generation, which makes videos of prompts as often as it is called."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import attrs
import torch
from torch import Tensor, nn

import mm_data
import mm_models
from mm_config import rules, spec_hash
from mm_config.console import progress
from mm_config.npu import check_environment
from mm_config.options import RunOptions
from mm_config.schema import concerning, expect, expect_function
from mm_config.specs import Expert, GenerationRequest, InferSpec, RandomWeights
from mm_infer.adapters import add_adapters
from mm_infer.content import require_pinned
from mm_infer.denoise import OnStep
from mm_infer.encoding import denoised, encoded
from mm_infer.opening import PATH_OF, Generation, open_generation, options_of_loading, train_missing
from mm_infer.passes import by_networks
from mm_infer.requests import (
    Inputs,
    expect_floats,
    inputs_of,
    latent_shape,
    requests_of,
)
from mm_models import Autoencoder, ImageEncoder, TextEncoder

Output = Literal["uint8", "float"]
"""How frames are handed out: 0 to 255 in uint8, or 0 to 1 in float32."""


@attrs.frozen(eq=False)
class Video:
    """A generated video."""

    request: GenerationRequest
    """What was asked for."""
    frames: Tensor = attrs.field(repr=lambda frames: f"{list(frames.shape)} {frames.dtype}")
    """`[T, H, W, 3]` on the CPU: uint8 from 0 to 255 or, where that was asked for, float32 from 0 to 1."""


@attrs.frozen(eq=False)
class Pipeline:
    """Networks, autoencoder and text encoder of a spec, loaded once: call it with prompts as often as needed.

    Shapes: B videos, C latent channels, T, H, W latent frames, height and width, L text tokens, D text width.
    """

    spec: InferSpec = attrs.field(repr=lambda spec: spec_hash(spec)[:12])
    """What is carried out."""
    device: torch.device
    """Where everything is computed."""
    networks: Mapping[Expert, nn.Module] = attrs.field(repr=False)
    """The experts that the spec's boundary calls for, with their adapters."""
    autoencoder: Autoencoder = attrs.field(repr=False)
    """Latents to pixels."""
    text_encoder: TextEncoder = attrs.field(repr=False)
    """Prompts to features."""
    image_encoder: ImageEncoder | None = attrs.field(default=None, repr=False)
    """Given frames to features, for networks with an image branch."""

    def __call__(
        self,
        prompts: Sequence[str | GenerationRequest],
        *,
        latents: Tensor | None = None,
        generator: torch.Generator | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        on_step: OnStep | None = None,
        output: Output = "uint8",
    ) -> tuple[Video, ...]:
        """Makes B videos, one for each prompt and in their order, `spec.runtime.batch_size` at a time.

        A video depends on its request and the spec, not on its neighbours nor on the device.

        Args:
            prompts: Requests, or plain prompts, whose seed is 0.
            latents: The noise to start from, `[B, C, T, H, W]`, standard normal, in place of what the
                requests' seeds draw.
            generator: Draws all of that noise at once, on the CPU, in place of the seeds.
            prompt_embeds: Features `[B, L, D]` in place of what the text encoder makes of the prompts; L is
                the encoder's `max_tokens`, and tokens beyond a text's length are zero.
            negative_prompt_embeds: The same for the negative prompts.
            on_step: Called as `on_step(step, sigma, expert, latents)` after each step of each batch; `sigma`
                is the noise level that the step began at, and the latents are those it left. What it writes
                into them is what the next step begins with; who keeps them beyond the call and doesn't want
                to alter the video clones them.
            output: Whether frames are uint8 from 0 to 255 or float32 from 0 to 1.

        Raises:
            TypeError: An argument is of another type.
            ValueError: A tensor has another shape, or no values, as on meta; or both latents and a generator
                are given.
            UserError: A prompt is blank or too long, a request asks for what is not carried out, or the
                latents are not finite in the end.
        """
        if output not in ("uint8", "float"):
            raise ValueError(f"output: expected 'uint8' or 'float', got {output!r}")
        inputs = inputs_of(self.spec, prompts, latents, generator, prompt_embeds, negative_prompt_embeds)
        expect_function("on_step", on_step)
        return tuple(make_videos(self, inputs, on_step, output))

    def denoise(
        self,
        prompts: Sequence[str | GenerationRequest],
        *,
        latents: Tensor | None = None,
        generator: torch.Generator | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """The clean latents of the videos that a call with the same arguments makes, for `decode`.

        Returns:
            `[B, C, T, H, W]` in float32 on the pipeline's device.

        Raises:
            TypeError, ValueError, UserError: As the call.
        """
        inputs = inputs_of(self.spec, prompts, latents, generator, prompt_embeds, negative_prompt_embeds)
        expect_function("on_step", on_step)
        batches = inputs.batches(self.spec)
        if len({latent_shape(self.spec, request) for request in inputs.requests}) > 1:
            raise ValueError("prompts: they make videos of several sizes; call once for each size")
        with _progress(self, batches, on_step) as took:
            return torch.cat([_denoised(self, batch, took) for batch in batches])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[B, C, T, H, W]` to video `[B, 3, T, H, W]` in about [-1, 1], float32 on the CPU.

        Videos of any number and size: only C is the autoencoder's.

        Raises:
            TypeError: The latents are no tensor of floats.
            ValueError: They have another shape, or no values, as on meta.
        """
        channels = self.spec.autoencoder.latent_channels
        expect_floats("latents", latents)
        if latents.ndim != 5 or latents.shape[1] != channels or not latents.numel():
            expected = f"[B, C, T, H, W] = [B, {channels}, T, H, W]"
            raise ValueError(f"latents: expected the shape {expected}, got {list(latents.shape)}")
        with mm_models.deterministic(self.device, self.spec.runtime.deterministic):
            return self.autoencoder.decode(latents.to(self.device)).float().cpu()


def load(spec: InferSpec, options: RunOptions | None = None) -> Pipeline:
    """Loads a generation once, to make videos of it many times: `load(spec)(["a red circle moving up"])`.

    Args:
        spec: What to carry out. Weights that a training makes are found by its hash; they are trained first
            where `spec.runtime.build_missing` says so.
        options: Where runs and releases are looked up, where `mm generate` looks them up by default, and how
            missing weights are trained. Loading is no run, so what only a run could heed is refused.

    Raises:
        TypeError: An argument is of another type.
        UserError: The spec breaks a rule or can't be carried out here, or weights are missing.
    """
    return _load(spec, options, None)


def generate(
    spec: InferSpec, prompts: Sequence[str | GenerationRequest], options: RunOptions | None = None
) -> tuple[Video, ...]:
    """Makes one video per prompt, in their order: `load`, then one call of the pipeline.

    The prompts are checked before anything is trained or loaded.

    Args:
        spec, options: As for `load`.
        prompts: Requests, or plain prompts, whose seed is 0.

    Raises:
        TypeError: An argument is of another type.
        UserError: As `load`, or a prompt is blank or too long.
    """
    requests = requests_of(prompts)
    return tuple(make_videos(_load(spec, options, requests), Inputs(requests)))


def load_pipeline(generation: Generation) -> Pipeline:
    """Loads the experts with their adapters, the text encoder and the autoencoder onto the device.

    Args:
        generation: Opened, with nothing left to train.
    """
    spec, place, locations = generation.spec, generation.device, generation.options.locations
    return Pipeline(
        spec=spec,
        device=place,
        networks={expert: load_network(generation, expert) for expert in generation.weights},
        autoencoder=mm_models.build_autoencoder(spec.autoencoder, device=place, locations=locations),
        text_encoder=mm_models.build_text_encoder(spec.text_encoder, device=place, locations=locations),
        image_encoder=None
        if spec.image_encoder is None
        else mm_models.build_image_encoder(spec.image_encoder, device=place, locations=locations),
    )


def make_videos(
    pipeline: Pipeline, inputs: Inputs, on_step: OnStep | None = None, output: Output = "uint8"
) -> Iterator[Video]:
    """Makes the videos of checked inputs in batches, showing progress.

    The videos of a batch are handed on before the next batch begins, so that they can be kept.
    """
    to_pixels = mm_data.to_frames if output == "uint8" else mm_data.to_unit_frames
    batches = inputs.batches(pipeline.spec)
    with _progress(pipeline, batches, on_step) as took:
        for batch in batches:
            decoded = pipeline.decode(_denoised(pipeline, batch, took))
            frames = to_pixels(decoded)
            yield from (Video(request, one) for request, one in zip(batch.requests, frames, strict=True))


def _load(
    spec: InferSpec, options: RunOptions | None, requests: Sequence[GenerationRequest] | None
) -> Pipeline:
    expect("spec", spec, InferSpec)
    options = options_of_loading(options)
    check_environment(spec)
    generation = train_missing(open_generation(spec, options, requests))
    require_pinned(generation)
    return load_pipeline(generation)


def load_network(generation: Generation, expert: Expert) -> nn.Module:
    """An expert with its weights and adapters, on the generation's device."""
    network = mm_models.build(
        generation.spec.model,
        device=generation.device,
        dtype=generation.dtype,
        ops=generation.ops,
        float32_residual=generation.spec.float32_residual,
    )
    if isinstance(weights := generation.weights[expert], RandomWeights):
        mm_models.initialize(network, weights.seed)
    else:
        with concerning(PATH_OF[expert]):
            mm_models.load(network, weights)
    add_adapters(network, [one for one in generation.adapters if one.field.expert is expert])
    return network.eval().requires_grad_(False)


@contextmanager
def _progress(pipeline: Pipeline, batches: Sequence[Inputs], on_step: OnStep | None) -> Generator[OnStep]:
    """A bar of the steps of all batches; what it gives moves the bar and passes each step on."""
    count = sum(len(batch.requests) for batch in batches)
    title = f"generate {count} video{'s' if count > 1 else ''}"
    total = sum(_steps(pipeline.spec, batch.requests[0]) for batch in batches)
    wanted = pipeline.spec.runtime.deterministic
    with mm_models.deterministic(pipeline.device, wanted), progress(title, total, "step") as bar:

        def took(step: int, sigma: float, expert: Expert, latents: Tensor) -> None:
            bar.advance(1)
            if on_step is not None:
                on_step(step, sigma, expert, latents)

        yield took


def _steps(spec: InferSpec, request: GenerationRequest) -> int:
    """Denoising steps that a request's video takes."""
    made = rules.spec_of(spec, request)
    return made.sampler.steps - rules.first_step(made, request)


@torch.inference_mode()
def _denoised(pipeline: Pipeline, batch: Inputs, on_step: OnStep) -> Tensor:
    """The clean latents `[B, C, T, H, W]` of one batch. Raises UserError where they are not finite."""
    encoders = pipeline.text_encoder, pipeline.autoencoder, pipeline.image_encoder
    inputs = encoded(pipeline.spec, *encoders, batch, pipeline.device)
    return denoised(pipeline.spec, by_networks(pipeline.networks), inputs, on_step)
