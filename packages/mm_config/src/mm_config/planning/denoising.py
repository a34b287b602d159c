"""The work of denoising a video: passes by step, less what a cache or sparse attention leaves out."""

from __future__ import annotations

from mm_config.planning.costs import Work, infer_layout
from mm_config.planning.encoders import image_tokens
from mm_config.planning.sparse import seen_pairs
from mm_config.rules.sampling import guidance_by_step
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import ATTENTION_CORES
from mm_config.specs.serving import GuidanceMode


def infer_work(spec: InferSpec, first_step: int = 0) -> Work:
    """A video: one forward pass per denoising step, two where the expert at work has guidance above 1.

    A video that starts from a given one begins with a later step. Steps that a feature cache skips count what
    lies around the blocks; what sparse attention leaves out, encoding and decoding are not counted.
    """
    model = spec.model
    latent_shape = spec.autoencoder.latent_shape(spec.num_frames, spec.height, spec.width)
    images = image_tokens(spec.image_encoder, model)
    parts = model.flops_by_part(latent_shape, spec.text_encoder.max_tokens, images)
    attention = sum(parts.get(part, 0) for part in ATTENTION_CORES)
    products = sum(parts.values()) - attention
    passes, skipped = passes_by_step(spec), [step for step in skipped_steps(spec) if step >= first_step]
    around = model.flops_outside_blocks(latent_shape, spec.text_encoder.max_tokens, images)
    around *= sum(passes[step] for step in skipped)
    number = sum(passes[first_step:]) - sum(passes[step] for step in skipped)
    attended = attention * number - left_out(spec, first_step)
    return Work(
        tokens=model.tokens(latent_shape),
        samples=1,
        flops_by_part=parts,
        step_flops=products * number + attended + around,
        product_flops=products * number + around,
        attention_forward_flops=attended,
        attention_backward_flops=0,
        dtype=spec.dtype,
        allow_tf32=False,
        ranks=_ranks_per_video(spec),
    )


def left_out(spec: InferSpec, first_step: int = 0) -> int:
    """What sparse attention does not compute of a video that begins with a step."""
    sparse, model = spec.sparse_attention, spec.model
    if sparse is None:
        return 0
    latent_shape = spec.autoencoder.latent_shape(spec.num_frames, spec.height, spec.width)
    parts = model.flops_by_part(latent_shape, spec.text_encoder.max_tokens, 0)
    tokens, layers = model.tokens(latent_shape), model.num_layers - sparse.dense_layers
    per_pair = parts.get("self_attention_core", 0) // (model.num_layers * tokens**2)
    unseen = tokens**2 - seen_pairs(sparse, model.token_grid(latent_shape))
    passes = passes_by_step(spec)
    return per_pair * unseen * layers * sum(passes[step] for step in sparse_steps(spec, first_step))


def sparse_steps(spec: InferSpec, first_step: int = 0) -> list[int]:
    """Its denoising steps with sparse attention."""
    if spec.sparse_attention is None:
        return []
    after = range(max(spec.sparse_attention.dense_steps, first_step), spec.sampler.steps)
    return sorted({*after} - {*skipped_steps(spec)})


def passes_by_step(spec: InferSpec) -> list[int]:
    """Forward passes of each denoising step."""
    return [2 if guidance > 1 else 1 for _, guidance in guidance_by_step(spec)]


def skipped_steps(spec: InferSpec) -> tuple[int, ...]:
    """Denoising steps that skip the blocks."""
    return () if spec.feature_cache is None else spec.feature_cache.skipped or ()


def _ranks_per_video(spec: InferSpec) -> int:
    branches = 2 if spec.runtime.guidance is GuidanceMode.PARALLEL else 1
    return infer_layout(spec).per_sample * branches
