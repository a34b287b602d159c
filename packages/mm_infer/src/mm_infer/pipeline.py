"""A loaded generation, which makes videos of prompts as often as it is called."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs
import torch
from torch import Tensor, nn

import mm_models
from mm_config import rules, spec_hash
from mm_config.console import progress, say
from mm_config.schema import UserError, expect_function
from mm_config.specs import Expert, GenerationRequest, InferSpec
from mm_infer.caching import passes_of
from mm_infer.dealing import Deal, on_all_ranks, reached_a_step, turns, wait_for_others
from mm_infer.denoise import OnStep
from mm_infer.encoding import denoised, encoded
from mm_infer.latents import Denoised
from mm_infer.layout import ALONE, Layout
from mm_infer.previews import OnPreview, previewing
from mm_infer.requests import (
    Inputs,
    expect_floats,
    inputs_of,
    latent_shape,
)
from mm_infer.residency import ALWAYS_THERE, Residents
from mm_infer.spreading import on_two_ranks
from mm_infer.stages import Output, finished
from mm_infer.watching import UNWATCHED, Watch
from mm_models import Autoencoder, ImageEncoder, SparseAttention, TextEncoder


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
    residents: Residents = attrs.field(default=ALWAYS_THERE, repr=False)
    """Who is on the device only while it works."""
    layout: Layout = attrs.field(default=ALONE, repr=False)
    """The ranks that make the videos."""
    sparse: SparseAttention | None = attrs.field(default=None, repr=False)
    """The networks' self-attention where it is sparse, which is told of each pass."""

    @property
    def decodes(self) -> bool:
        """Whether this rank decodes its group's videos: the first does, or all of them together."""
        return self.layout.leads or self.spec.runtime.parallel.autoencoder

    def __call__(
        self,
        prompts: Sequence[str | GenerationRequest],
        *,
        latents: Tensor | None = None,
        generator: torch.Generator | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        on_step: OnStep | None = None,
        on_preview: OnPreview | None = None,
        output: Output = "uint8",
    ) -> tuple[Video, ...]:
        """Makes B videos, one for each prompt and in their order, `spec.runtime.batch_size` at a time.

        A video depends on its request and the spec, not on its neighbours nor on the device. Under torchrun
        every rank makes the call, with the same arguments, and gets all videos.

        Args:
            prompts: Requests, or plain prompts, whose seed is 0.
            latents: The noise to start from, `[B, C, T, H, W]`, standard normal, in place of what the
                requests' seeds draw.
            generator: Draws all of that noise at once, on the CPU, in place of the seeds.
            prompt_embeds: Features `[B, L, D]` in place of what the text encoder makes of the prompts; L is
                the encoder's `max_tokens`, and tokens beyond a text's length are zero.
            negative_prompt_embeds: The same for the negative prompts.
            on_step: Called as `on_step(step, sigma, expert, latents)` after each step of each batch, on the
                ranks that make it; `sigma`
                is the noise level that the step began at, and the latents are those it left. What it writes
                into them is what the next step begins with; who keeps them beyond the call and doesn't want
                to alter the video clones them.
            on_preview: Called with a `Preview` of each video every `spec.runtime.preview_every` steps or,
                where the spec says none, after each: colours of the latents that the step estimates.
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
        expect_function("on_preview", on_preview)
        return every_video(self, inputs, Watch(on_step, on_preview=on_preview), output)

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
        if len({latent_shape(self.spec, request) for request in inputs.requests}) > 1:
            raise ValueError("prompts: they make videos of several sizes; call once for each size")
        made: dict[int, Tensor] = {}
        for turn in denoised_turns(self, inputs, Watch(on_step)):
            mine = {number: one.latents for number, one in turn.items() if self.layout.leads}
            made |= on_all_ranks(mine, self.layout, self.device)
        return torch.stack([made[number] for number in sorted(made)])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[B, C, T, H, W]` to video `[B, 3, T, H, W]` in about [-1, 1], float32 on the CPU.

        Videos of any number and size: only C is the autoencoder's. Ranks that share it call this together.

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
            return torch.cat([*mm_models.decoded_slices(self.autoencoder, latents.to(self.device))], dim=2)


def make_videos(
    pipeline: Pipeline, inputs: Inputs, watch: Watch = UNWATCHED, output: Output = "uint8"
) -> Iterator[dict[int, Video]]:
    """Makes the videos of checked inputs turn by turn, showing progress.

    A turn's videos are handed on before the next turn begins, so that they can be kept, by the numbers of
    their requests: to the first rank of each group those that its group made. All ranks take every turn.
    """
    for turn in denoised_turns(pipeline, inputs, watch):
        made = {
            number: Video(one.request, torch.cat([*frames_of(pipeline, one.latents, output)]))
            for number, one in turn.items()
            if pipeline.decodes
        }
        yield made if pipeline.layout.leads else {}


def denoised_turns(
    pipeline: Pipeline, inputs: Inputs, watch: Watch = UNWATCHED
) -> Iterator[dict[int, Denoised]]:
    """The same, before anything is decoded, on all ranks of a group: the latents of its batch.

    A turn has a batch of each group of ranks, the last one perhaps of fewer.
    """
    layout, ranks = pipeline.layout, pipeline.layout.ranks
    deals = turns(inputs.batches(pipeline.spec), layout)
    with _progress(pipeline, inputs, deals, watch.on_step) as took:
        watch = attrs.evolve(watch, on_step=took)
        compiled = len(mm_models.compiled_shapes())
        for deal in deals:
            # Ranks wait for each other in a pass, so what fails on one alone ends it at once.
            yield ranks.together(lambda deal=deal: _in_a_turn(pipeline, deal, watch), UserError)
    if pipeline.spec.runtime.compile.enabled:
        say(mm_models.told_compilations(mm_models.compiled_shapes()[compiled:]))


@torch.no_grad()
def frames_of(pipeline: Pipeline, latents_CTHW: Tensor, output: Output = "uint8") -> Iterator[Tensor]:
    """The frames `[t, H, W, 3]` of a video, those of a latent frame at a time, on the CPU."""
    with mm_models.deterministic(pipeline.device, pipeline.spec.runtime.deterministic):
        latents = latents_CTHW[None].to(pipeline.device)
        slices = mm_models.decoded_slices(pipeline.autoencoder, latents)
        yield from finished(pipeline.spec, slices, output)


def every_video(
    pipeline: Pipeline, inputs: Inputs, watch: Watch = UNWATCHED, output: Output = "uint8"
) -> tuple[Video, ...]:
    """The videos of checked inputs, in their order, on every rank."""
    found: dict[int, Video] = {}
    for made in make_videos(pipeline, inputs, watch, output):
        found |= videos_on_all_ranks(pipeline, inputs, made)
    return tuple(found[number] for number in range(len(inputs.requests)))


def videos_on_all_ranks(pipeline: Pipeline, inputs: Inputs, made: Mapping[int, Video]) -> dict[int, Video]:
    """A turn's videos of all ranks."""
    mine = {number: video.frames for number, video in made.items()}
    found = on_all_ranks(mine, pipeline.layout, torch.device("cpu"))
    return {number: Video(inputs.requests[number], frames) for number, frames in found.items()}


@contextmanager
def _progress(
    pipeline: Pipeline, inputs: Inputs, deals: Sequence[Deal | None], on_step: OnStep | None
) -> Generator[OnStep]:
    """A bar of the steps of this rank's batches; what it gives moves the bar and passes each step on."""
    layout, count = pipeline.layout, len(inputs.requests)
    title = f"generate {count} video{'s' if count > 1 else ''}"
    total = sum(_steps(pipeline.spec, deal.batch.requests[0]) for deal in deals if deal is not None)
    wanted = pipeline.spec.runtime.deterministic
    with mm_models.deterministic(pipeline.device, wanted), progress(title, total, "step") as bar:

        def took(step: int, sigma: float, expert: Expert, latents: Tensor) -> None:
            bar.advance(1)
            layout.ranks.reached(step)
            reached_a_step(layout)
            if on_step is not None:
                on_step(step, sigma, expert, latents)

        yield took


def _steps(spec: InferSpec, request: GenerationRequest) -> int:
    """Denoising steps that a request's video takes."""
    made = rules.spec_of(spec, request)
    return made.sampler.steps - rules.first_step(made, request)


def _in_a_turn(pipeline: Pipeline, deal: Deal | None, watch: Watch) -> dict[int, Denoised]:
    """The latents of a batch by their requests' numbers, once those of other groups of ranks are made too."""
    made: dict[int, Denoised] = {}
    failure: UserError | None = None
    try:
        if deal is not None:
            latents = _denoised(pipeline, deal.batch, watch)
            found = map(Denoised, deal.batch.requests, latents)
            made = {deal.first + place: one for place, one in enumerate(found)}
    except UserError as error:
        failure = error
    wait_for_others(pipeline.layout)
    if failure is not None:
        raise failure
    return made


@torch.inference_mode()
def _denoised(pipeline: Pipeline, batch: Inputs, watch: Watch) -> Tensor:
    """The clean latents `[B, C, T, H, W]` of one batch. Raises UserError where they are not finite."""
    encoders = pipeline.text_encoder, pipeline.autoencoder, pipeline.image_encoder
    with watch.timed("encode"):
        inputs = encoded(pipeline.spec, *encoders, batch, pipeline.device)
    forward = pipeline.residents.brought(
        passes_of(pipeline.networks, pipeline.spec.feature_cache, pipeline.sparse)
    )
    if watch.around is not None:
        forward = watch.around(forward, pipeline.networks)
    if pipeline.layout.guidance is not None:
        forward = on_two_ranks(forward, pipeline.layout.guidance)
    on_estimate = previewing(pipeline.spec, pipeline.autoencoder, batch.requests, watch.on_preview)
    with watch.timed("denoise"):
        return denoised(pipeline.spec, forward, inputs, watch.on_step, on_estimate)
