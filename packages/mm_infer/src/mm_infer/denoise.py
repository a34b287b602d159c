"""The denoising loop: noise becomes latents, one expert at high noise levels, another at low ones.

Shapes: B videos, C latent channels, T, H, W latent frames, height and width, L text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mm_config.specs import NUM_TRAIN_TIMESTEPS, Expert, SamplerSpec
from mm_infer.passes import Branch, Forward, Pass
from mm_infer.samplers import SOLVERS, sigmas
from mm_models import NOTHING, Given, network_inputs, with_clean_frame

OnStep = Callable[[int, float, Expert, Tensor], object]
"""`(step, sigma, expert, latents)`, called after each step: its number from 0, the noise level that it began
at, the expert that took it, and the latents `[B, C, T, H, W]` that it left at the next level."""
OnEstimate = Callable[[int, Tensor], object]
"""`(step, latents)`, called in each step: its number from 0, and the clean latents that it estimates."""


def expert_for(timestep: float, boundary: float | None) -> Expert:
    """The expert of a timestep: high noise at and above `boundary * 1000`, as in Wan's own code."""
    if boundary is None:
        return Expert.SINGLE
    return Expert.HIGH_NOISE if timestep >= boundary * NUM_TRAIN_TIMESTEPS else Expert.LOW_NOISE


def denoise(
    noise_BCTHW: Tensor,
    text_BLD: Tensor,
    negative_BLD: Tensor,
    forward: Forward,
    sampler: SamplerSpec,
    boundary: float | None,
    *,
    dtype: torch.dtype = torch.float32,
    batched: bool = True,
    on_step: OnStep | None = None,
    on_estimate: OnEstimate | None = None,
    given: Given = NOTHING,
    first_step: int = 0,
) -> Tensor:
    """Walks noise down the sampler's table to clean latents.

    A clean first frame takes its place in what the networks are given, and in the latents after each step, as
    in Wan's `textimage2video.py`. diffusers puts it in after the last step alone, which gives the same video:
    solvers work on each value by itself, and the networks never see another first frame.

    Args:
        noise_BCTHW: Standard normal, float32, on the networks' device; where steps before `first_step` are
            left out, latents with as much noise as that step begins at.
        text_BLD: Features of the prompts.
        negative_BLD: Features of the negative prompts; those of "" for none.
        forward: Makes the passes of the experts that the boundary calls for.
        sampler: Table, solver and guidance.
        boundary: Noise level of the switch; None for a single network.
        dtype: What the networks are given; latents, guidance and solver stay in float32.
        batched: Whether both passes of guidance are one pass of twice the batch.
        on_step: Called after each step.
        on_estimate: Called in each step with the clean latents that its velocity points at, x - sigma v.
        given: What given frames come to, of the same videos; both passes of guidance have it.
        first_step: The step that begins, of those that the sampler counts from 0.

    Returns:
        Latents `[B, C, T, H, W]` in float32.
    """
    latents, history = noise_BCTHW.float(), None
    walked, step = sigmas(sampler)[first_step:], SOLVERS[sampler.solver]
    levels, told = sampler.noise_levels()[first_step:], sampler.told_timesteps()[first_step:]
    text, negative = text_BLD.to(dtype), negative_BLD.to(dtype)
    image = None if given.image_BIK is None else given.image_BIK.to(dtype)
    for index, (level, timestep) in enumerate(zip(levels, told, strict=True)):
        expert = expert_for(timestep, boundary)
        guidance, number = sampler.guidance_at(level, expert), first_step + index
        # float32: in bfloat16 999 would be 1000.
        timestep_B = torch.full((len(latents),), timestep, dtype=torch.float32, device=latents.device)
        shown, timesteps, _ = network_inputs(given, latents, timestep_B)
        inputs = (shown.to(dtype), timesteps, text, negative, guidance, image)
        velocity = guided_velocity(
            forward, number, expert, *inputs, batched=batched, rescale=sampler.guidance_rescale
        )
        if on_estimate is not None:
            on_estimate(number, with_clean_frame(given, latents - float(walked[index]) * velocity))
        latents, history = step(walked, index, latents, velocity, history)
        latents = with_clean_frame(given, latents)
        if on_step is not None:
            on_step(number, float(walked[index]), expert, latents)
    return latents


def guided_velocity(
    forward: Forward,
    step: int,
    expert: Expert,
    latents: Tensor,
    timestep: Tensor,
    text: Tensor,
    negative: Tensor,
    guidance: float,
    image: Tensor | None = None,
    *,
    batched: bool = True,
    rescale: float = 0.0,
) -> Tensor:
    """Classifier-free guidance, v_u + s (v_c - v_u) in float32.

    Both velocities come from one forward pass of twice the batch, or from two passes, which differ in the
    text alone. With a guidance of 1 the negative prompt has no weight, and is not computed.

    With `rescale` r the outcome v gets (1 - r + r std(v_c) / std(v)) times its size, each video by its own
    deviation over all its values: formulas 15 and 16 of Lin et al., arXiv 2305.08891.
    """
    images = () if image is None else (image,)

    def velocity(branch: Branch, *inputs: Tensor) -> Tensor:
        return forward(Pass(step, expert, branch), *inputs).float()

    if guidance == 1:
        return velocity(Branch.PROMPT, latents, timestep, text, *images)
    if batched:
        doubled = [torch.cat((one, one)) for one in (latents, timestep, *images)]
        texts = torch.cat((text, negative))
        conditional, unconditional = velocity(Branch.BOTH, *doubled[:2], texts, *doubled[2:]).chunk(2)
    else:
        conditional = velocity(Branch.PROMPT, latents, timestep, text, *images)
        unconditional = velocity(Branch.NEGATIVE, latents, timestep, negative, *images)
    mixed = unconditional + guidance * (conditional - unconditional)
    return rescaled(mixed, conditional, rescale) if rescale else mixed


def rescaled(mixed_BCTHW: Tensor, conditional_BCTHW: Tensor, share: float) -> Tensor:
    """Guided velocities whose deviation is brought back to the prompt's own, by a share from 0 to 1."""
    wanted, found = (one.flatten(1).std(1) for one in (conditional_BCTHW, mixed_BCTHW))
    scale_B = 1 - share + share * wanted / found
    return mixed_BCTHW * scale_B.view(-1, *[1] * (mixed_BCTHW.ndim - 1))
