"""What a call asks for: its requests and the tensors that a caller gives beside them, checked.

Shapes: B videos, C latent channels, T, H, W latent frames, height and width, L text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import attrs
import torch
from torch import Tensor

import mm_models
from mm_config import rules
from mm_config.console import say
from mm_config.schema import Problem, UserError, expect, gathering, prefixed
from mm_config.specs import GenerationRequest, HashedTextEncoderSpec, InferSpec, NoiseDraw
from mm_infer.carried_out import request_refusals
from mm_infer.images import check_files, video_size
from mm_models import seeding


@attrs.frozen(eq=False)
class Inputs:
    """One request for each of B videos, and what takes the place of its noise and texts."""

    requests: tuple[GenerationRequest, ...]
    """What is asked for."""
    noise: Tensor | None = None
    """`[B, C, T, H, W]`; None draws each request's by its seed."""
    text: Tensor | None = None
    """Features `[B, L, D]`; None encodes the prompts."""
    negative: Tensor | None = None
    """Features `[B, L, D]`; None encodes the negative prompts."""

    def batches(self, spec: InferSpec) -> tuple[Inputs, ...]:
        """The same in parts of at most `spec.runtime.batch_size` videos, in their order.

        The videos of a part are made by the same spec and have the same size, and all of them begin with the
        same step, and with a given frame or none.
        """
        keys = [_alike(spec, one) for one in self.requests]
        parts: list[slice] = []
        for _, alike in groupby(range(len(keys)), keys.__getitem__):
            first, *others = alike
            end, size = first + 1 + len(others), spec.runtime.batch_size
            parts += [slice(start, min(start + size, end)) for start in range(first, end, size)]
        tensors = (self.noise, self.text, self.negative)
        return tuple(
            Inputs(self.requests[part], *(None if one is None else one[part] for one in tensors))
            for part in parts
        )


def _alike(spec: InferSpec, request: GenerationRequest) -> tuple[object, ...]:
    """What the requests of a batch have in common."""
    made = rules.spec_of(spec, request)
    size = (made.num_frames, *video_size(spec, request))
    given = request.image is None, request.video is None
    return size, made.sampler, rules.first_step(made, request), given


def inputs_of(
    spec: InferSpec,
    prompts: Sequence[str | GenerationRequest],
    latents: Tensor | None,
    generator: torch.Generator | None,
    prompt_embeds: Tensor | None,
    negative_prompt_embeds: Tensor | None,
) -> Inputs:
    """Checks the arguments of a call, which `Pipeline` explains.

    Raises:
        TypeError: One is of another type.
        ValueError: A tensor has another shape, or both latents and a generator are given.
        UserError: A prompt is blank or too long, or a request asks for what is not carried out.
    """
    requests = requests_of(prompts)
    if found := list(request_refusals(requests)):
        raise UserError(found)
    check_requests(spec, requests)
    for idle in rules.idle_requests(spec, requests):
        say(str(idle))
    text_shape = (len(requests), spec.text_encoder.max_tokens, spec.text_encoder.text_dim)
    if generator is not None:
        if latents is not None:
            raise ValueError("latents, generator: expected one of them, got both")
        expect("generator", generator, torch.Generator)
        if generator.device.type != "cpu":
            raise ValueError(f"generator: expected one on the CPU, got one on {generator.device}")
        latents = torch.randn(_noise_shape("generator", spec, requests), generator=generator)
    if latents is not None:
        shape = _noise_shape("latents", spec, requests)
        latents = _given("latents", latents, "[B, C, T, H, W]", shape)
    return Inputs(
        requests,
        latents,
        _given("prompt_embeds", prompt_embeds, "[B, L, D]", text_shape),
        _given("negative_prompt_embeds", negative_prompt_embeds, "[B, L, D]", text_shape),
    )


def requests_of(prompts: Sequence[str | GenerationRequest]) -> tuple[GenerationRequest, ...]:
    """Requests as they are, and a request of seed 0 for each plain prompt.

    Raises:
        TypeError: It is no sequence of both, such as a single string.
        ValueError: It is empty.
    """
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, Sequence):
        kind = type(prompts).__name__
        single = "; put it in a list" if isinstance(prompts, (str, GenerationRequest)) else ""
        raise TypeError(f"prompts: expected a sequence of str or GenerationRequest, got {kind}{single}")
    for index, one in enumerate(prompts):
        if not isinstance(one, (str, GenerationRequest)):
            kind = type(one).__name__
            raise TypeError(f"prompts[{index}]: expected str or GenerationRequest, got {kind}")
    if not prompts:
        raise ValueError("prompts: expected at least one, got none")
    return tuple(GenerationRequest(prompt=one) if isinstance(one, str) else one for one in prompts)


def check_requests(spec: InferSpec, requests: Sequence[GenerationRequest]) -> None:
    """Refuses what is known to fail before anything is loaded.

    Texts that are too long are known for an encoder without weights; others know their tokens once they are
    loaded.

    Raises:
        UserError: There are none, or some are blank, too long or not what the spec's network takes.
    """
    if not requests:
        path = "requests" if spec.samples.prompts else "spec.samples.prompts"
        raise UserError(Problem(path, "is empty: there is no video to make"))
    problems: list[Problem] = []
    refused: set[int] = set()
    for index, request in enumerate(requests):
        if found := [*rules.request_problems(request, spec)]:
            problems += prefixed(found, f"request {index}")
            refused.add(index)
    if isinstance(spec.text_encoder, HashedTextEncoderSpec):
        texts = {text for one in requests for text in (one.prompt, negative_prompt(spec, one))}
        with gathering(problems):
            mm_models.build_text_encoder(spec.text_encoder).encode(sorted(texts))
    with gathering(problems):
        check_files(spec, requests, refused)
    if problems:
        raise UserError(problems)


def negative_prompt(spec: InferSpec, request: GenerationRequest) -> str:
    """What a request's video should not show: its own words, which may be none, else the spec's."""
    own, may_be_empty = request.negative_prompt, request.negative_prompt_may_be_empty
    return spec.negative_prompt if own is None or not (own or may_be_empty) else own


def latent_shape(spec: InferSpec, request: GenerationRequest) -> tuple[int, int, int, int]:
    """`(C, T, H, W)` of a request's video."""
    num_frames = rules.spec_of(spec, request).num_frames
    shape = spec.autoencoder.latent_shape(num_frames, *video_size(spec, request))
    return (spec.autoencoder.latent_channels, *shape)


def noise_of(spec: InferSpec, request: GenerationRequest) -> Tensor:
    """A request's first latents `[C, T, H, W]`: drawn on the CPU, equal on every device and in any batch.

    diffusers draws `[1, C, T, H, W]`, which are the same numbers in the same order.
    """
    if spec.sampler.noise is NoiseDraw.DIFFUSERS:
        generator = torch.Generator().manual_seed(request.seed)
    else:
        generator = seeding.generator(request.seed, "latents")
    return torch.randn(latent_shape(spec, request), generator=generator)


def expect_floats(name: str, value: object) -> None:
    """Holds an argument to be a tensor of floats.

    Raises:
        TypeError: It is none.
        ValueError: It has no values, as on meta.
    """
    expect(name, value, Tensor)
    assert isinstance(value, Tensor)
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected float32, got {str(value.dtype).removeprefix('torch.')}")
    if value.is_meta:
        raise ValueError(f"{name}: expected a tensor with values, got one on meta")


def _given(name: str, value: Tensor | None, axes: str, shape: tuple[int, ...]) -> Tensor | None:
    if value is None:
        return None
    expect_floats(name, value)
    if tuple(value.shape) != shape:
        raise ValueError(f"{name}: expected the shape {axes} = {list(shape)}, got {list(value.shape)}")
    return value.float()


def _noise_shape(
    name: str, spec: InferSpec, requests: Sequence[GenerationRequest]
) -> tuple[int, int, int, int, int]:
    """`[B, C, T, H, W]` of all videos. Raises ValueError where they have several sizes."""
    shape, *others = {latent_shape(spec, request) for request in requests}
    if others:
        raise ValueError(f"{name}: the requests make videos of several sizes; call once for each size")
    return (len(requests), *shape)
