"""How well videos follow their prompts: hands each video to the scorer that the spec names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from mm_config.schema import Problem, UserError
from mm_config.specs import GenerationRequest, ScorerSpec, ShapesScorerSpec
from mm_data import shapes
from mm_infer.pipeline import Video


@attrs.frozen
class Score:
    """The outcome of a scorer."""

    shares: Mapping[str, float]
    """The share of all videos, 0 to 1, that are right, by what was measured."""
    measurements: tuple[dict[str, Any], ...]
    """What was measured on each video, in their order, as JSON values."""


def check_scorable(scorer: ScorerSpec | None, requests: Sequence[GenerationRequest]) -> None:
    """Refuses, before any work, a scorer that is unknown or prompts that it can't judge.

    Raises:
        UserError: With one problem per prompt.
    """
    match scorer:
        case None:
            return
        case ShapesScorerSpec():
            problems = [
                Problem("spec.samples.prompts", problem)
                for prompt in dict.fromkeys(request.prompt for request in requests)
                for problem in _caption_problems(prompt)
            ]
        case _:
            problems = [Problem("spec.samples.scorer", f"no scorer is known for {type(scorer).__name__}")]
    if problems:
        raise UserError(problems)


def score(scorer: ScorerSpec, videos: Sequence[Video]) -> Score:
    """Measures every video once and counts what is right.

    Args:
        scorer: One that `check_scorable` has accepted, with the prompts.
        videos: At least one.
    """
    assert isinstance(scorer, ShapesScorerSpec)
    measured = [attrs.asdict(shapes.measure(video.frames)) for video in videos]
    asked_for = [shapes.parse_caption(video.request.prompt) for video in videos]
    right = [
        [got == asked for got, asked in zip(one.values(), words, strict=True)]
        for one, words in zip(measured, asked_for, strict=True)
    ]
    counts = [sum(column) for column in zip(*right, strict=True)]
    return Score(
        shares={name: count / len(videos) for name, count in zip(measured[0], counts, strict=True)},
        measurements=tuple(
            {"prompt": video.request.prompt, "seed": video.request.seed, **one}
            for video, one in zip(videos, measured, strict=True)
        ),
    )


def _caption_problems(prompt: str) -> Sequence[str]:
    try:
        shapes.parse_caption(prompt)
    except ValueError as error:
        return (str(error),)
    return ()
