"""The generation that a training makes videos by on its way, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from mm_config.rules.clips import size_problems
from mm_config.rules.conditioning import asked_problems, sample_problems
from mm_config.rules.weights import used_problems
from mm_config.schema.errors import Problem, SpecError
from mm_config.specs.diffusion import Expert
from mm_config.specs.infer import ImageFit, InferSpec
from mm_config.specs.lora import AppliedLoraSpec
from mm_config.specs.requests import SamplesSpec
from mm_config.specs.serving import InferRuntimeSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import RandomWeights, TrainedBy


def generation_of(spec: TrainSpec) -> InferSpec:
    """What makes the videos of `spec.samples`; random weights stand for the network in training.

    Without the other expert the network works through the whole noise range, as a single one. Of buckets the
    largest says the size, and images are cut to it, so that the network makes what it is trained on.
    """
    samples = spec.samples
    assert samples is not None
    sampler, own, other = samples.sampler, RandomWeights(), samples.other_expert
    is_low = spec.expert is Expert.LOW_NOISE
    if other is None and is_low:
        sampler = attrs.evolve(sampler, guidance_high_noise=sampler.guidance_low_noise)
    buckets = spec.data.buckets
    size = max(buckets, key=lambda one: one.num_frames * one.height * one.width) if buckets else spec.data
    return InferSpec(
        name=spec.name,
        model=spec.model,
        boundary=None if other is None else spec.diffusion.boundary,
        high_noise=other if other is not None and is_low else own,
        low_noise=own if other is not None and is_low else other,
        autoencoder=spec.autoencoder,
        text_encoder=spec.text_encoder,
        image_encoder=spec.image_encoder,
        sampler=sampler,
        num_frames=samples.num_frames or size.num_frames,
        height=samples.height or size.height,
        width=samples.width or size.width,
        fps=max(1, round(spec.data.fps)),
        dtype=spec.precision.compute,
        float32_residual=spec.precision.float32_residual,
        samples=SamplesSpec(
            prompts=samples.prompts,
            seeds=samples.seeds,
            images=samples.images,
            last_images=samples.last_images,
        ),
        image_fit=ImageFit.CROP if samples.images else ImageFit.AREA,
        runtime=InferRuntimeSpec(
            batch_size=samples.batch_size, device=spec.runtime.device, attention=spec.runtime.attention
        ),
    )


def generation_by(spec: TrainSpec) -> InferSpec:
    """What makes videos with what a training has made, as the training makes its own samples.

    Of a training that keeps an average, that is taken; an adapter is added to what it was trained on.

    Raises:
        SpecError: It says of no samples how they are made, or not which the other expert is.
    """
    samples = spec.samples
    if samples is None:
        why = "is None, so nothing says how its videos are made; write an inference spec with TrainedBy"
        raise SpecError(Problem("spec.samples", why))
    if samples.other_expert is None and spec.expert is not Expert.SINGLE:
        why = "is None, and a video takes both experts; say it, or write an inference spec with TrainedBy"
        raise SpecError(Problem("spec.samples.other_expert", why))
    made, trained = generation_of(spec), TrainedBy(spec=spec, average=spec.ema is not None)
    is_second = samples.other_expert is not None and spec.expert is Expert.LOW_NOISE
    if spec.lora is not None:
        adapter = AppliedLoraSpec(
            high_noise=None if is_second else trained, low_noise=trained if is_second else None
        )
        made, trained = attrs.evolve(made, loras=(adapter,)), spec.start_from
    return attrs.evolve(made, **{"low_noise" if is_second else "high_noise": trained})


def training_sample_problems(spec: TrainSpec, path: str) -> Iterator[Problem]:
    """The network can make what is asked for, with another expert where there are two.

    Args:
        spec: The training.
        path: Where it stands, for messages that name a second field.
    """
    if (samples := spec.samples) is None:
        return
    if samples.other_expert is not None and spec.diffusion.boundary is None:
        yield Problem("samples.other_expert", "must be None: a single network is trained")
        return
    try:
        generation = generation_of(spec)
    except SpecError as error:
        yield Problem("samples", f"no generation has what this training has: {error.problems[0]}")
        return
    blank = list(sample_problems(generation))
    yield from blank
    if blank:
        return
    size = generation.num_frames, generation.height, generation.width
    of_size = size_problems(size, generation.model, generation.autoencoder)
    for found in (*asked_problems(generation.samples.requests[0], generation), *of_size):
        if found.path in ("image", "last_image"):
            if not getattr(samples, f"{found.path}s"):
                yield Problem(f"samples.{found.path}s", found.message)
        elif getattr(samples, found.path, None) is not None:  # What the data says is judged there.
            yield Problem(f"samples.{found.path}", found.message)
    for found in used_problems(generation, path):
        yield Problem(f"samples.other_expert{found.path.partition('_noise')[2]}", found.message)
