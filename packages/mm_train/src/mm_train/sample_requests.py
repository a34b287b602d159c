"""What a training's own videos are made of: looked for and encoded before its first step."""

from __future__ import annotations

from contextlib import suppress

import attrs
import torch

import mm_models
from mm_config import rules
from mm_config.options import RunOptions
from mm_config.schema import Problem, UserError
from mm_config.specs import TrainSpec
from mm_infer import Encoded, Generation, Inputs, encoded, open_generation

OTHER = "spec.samples.other_expert"
_FIELDS = {"spec.high_noise": OTHER, "spec.low_noise": OTHER, "spec.sampler": "spec.samples.sampler"}
"""Fields of a generation, and those of the training that they come from where the paths differ."""


@attrs.frozen(eq=False)
class Sampling:
    """The videos that a training makes on its way."""

    generation: Generation
    """What makes them; of its weights those of the other expert alone are taken."""
    batches: tuple[Encoded, ...]
    """What is asked for, in the host's memory."""


def open_samples(spec: TrainSpec, options: RunOptions) -> Generation | None:
    """Finds all that the videos need, and refuses what can't be made; None where none are asked for.

    Raises:
        UserError: A prompt is too long, an image or weights can't be used, or the sampler can't be.
    """
    if spec.samples is None:
        return None
    prompts, seeds = spec.samples.prompts, len(spec.samples.seeds)
    long: dict[str, str] = {}
    with suppress(UserError):  # What is missing is told together with everything else that is.
        long = mm_models.too_long(spec.text_encoder, list(prompts), options.locations)
    problems = [
        Problem(f"spec.samples.prompts.{index}", f"has {long[prompt]}")
        for index, prompt in enumerate(prompts)
        if prompt in long
    ]
    if problems:
        raise UserError(problems)
    generation = rules.generation_of(spec)
    try:
        return open_generation(generation, options, generation.samples.requests)
    except UserError as error:
        found = [attrs.evolve(one, path=_path(one.path, seeds)) for one in error.problems]
        raise UserError(list(dict.fromkeys(found))) from error


def _path(path: str, seeds: int) -> str:
    """The field of a training that a problem of its generation is about."""
    if path.startswith("request "):
        number, _, name = path.removeprefix("request ").partition(".")
        field = {"image": "images", "last_image": "last_images"}.get(name, "prompts")
        return f"spec.samples.{field}.{int(number) // seeds}"
    mine = next((field for field in _FIELDS if path.startswith(field)), None)
    return path if mine is None else _FIELDS[mine] + path.removeprefix(mine)


@torch.no_grad()
def encoded_samples(generation: Generation | None) -> Sampling | None:
    """The prompts and images of a training's videos, encoded; the encoders are forgotten afterwards.

    Raises:
        UserError: Weights or images can't be read any more.
    """
    if generation is None:
        return None
    spec, place, locations = generation.spec, generation.device, generation.options.locations
    text_encoder = mm_models.build_text_encoder(spec.text_encoder, place, locations)
    autoencoder = mm_models.build_autoencoder(spec.autoencoder, place, locations)
    image_encoder = None
    if spec.image_encoder is not None:
        image_encoder = mm_models.build_image_encoder(spec.image_encoder, place, locations)
    host = torch.device("cpu")
    batches = tuple(
        encoded(spec, text_encoder, autoencoder, image_encoder, batch, place).to(host)
        for batch in Inputs(spec.samples.requests).batches(spec)
    )
    return Sampling(generation, batches)
