"""How well videos show what they are to show: hands each one to the scorer that the spec names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from mm_config.schema import Problem, UserError
from mm_config.specs import SamplesSpec, ScorerSpec, ShapesScorerSpec
from mm_data import shapes
from mm_infer.pipeline import Video


@attrs.frozen
class Score:
    """The outcome of a scorer."""

    shares: Mapping[str, float]
    """The share of all videos, 0 to 1, that are right, by what was measured."""
    measurements: tuple[dict[str, Any], ...]
    """What was measured on each video, in their order, as JSON values."""


def check_scorable(samples: SamplesSpec) -> None:
    """Refuses, before any work, a scorer that is unknown or texts that it can't judge videos by.

    Raises:
        UserError: With one problem per text.
    """
    match samples.scorer:
        case None:
            return
        case ShapesScorerSpec():
            path = "spec.samples.wanted" if samples.wanted else "spec.samples.prompts"
            problems = [
                Problem(path, problem)
                for text in dict.fromkeys(samples.asked_for)
                for problem in _caption_problems(text)
            ]
        case other:
            problems = [Problem("spec.samples.scorer", f"no scorer is known for {type(other).__name__}")]
    if problems:
        raise UserError(problems)


def score(scorer: ScorerSpec, videos: Sequence[Video], asked_for: Sequence[str]) -> Score:
    """Measures every video once and counts what is right.

    Args:
        scorer: One that `check_scorable` has accepted, with what is asked for.
        videos: At least one.
        asked_for: What each of them is to show.
    """
    assert isinstance(scorer, ShapesScorerSpec)
    colours = shapes.told_apart(asked_for)
    measured = [attrs.asdict(shapes.measure(video.frames, colours)) for video in videos]
    words = [shapes.parse_caption(text) for text in asked_for]
    right = [
        [got == word for got, word in zip(one.values(), asked, strict=True)]
        for one, asked in zip(measured, words, strict=True)
    ]
    counts = [sum(column) for column in zip(*right, strict=True)]
    return Score(
        shares={name: count / len(videos) for name, count in zip(measured[0], counts, strict=True)},
        measurements=tuple(
            {"prompt": video.request.prompt, "seed": video.request.seed, "asked_for": asked, **one}
            for video, asked, one in zip(videos, asked_for, measured, strict=True)
        ),
    )


def _caption_problems(text: str) -> Sequence[str]:
    try:
        shapes.parse_caption(text)
    except ValueError as error:
        return (str(error),)
    return ()
