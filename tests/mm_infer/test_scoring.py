"""The score: measured from pixels, counted against prompts."""

from __future__ import annotations

import pytest
import torch

from mm_config.schema.decorator import spec
from mm_config.schema.errors import UserError
from mm_config.specs.datasets import ShapesScorerSpec, ShapesSpec
from mm_config.specs.infer import GenerationRequest
from mm_config.specs.kinds import ScorerSpec
from mm_data import shapes
from mm_infer.pipeline import Video
from mm_infer.scoring import check_scorable, score


@spec("test-scorer")
class UnknownScorerSpec(ScorerSpec):
    """A scorer that nobody has written."""


def rendered(caption: str, number: int, prompt: str) -> Video:
    """A real clip of `caption` that claims to be made from `prompt`."""
    frames = torch.from_numpy(shapes.render(ShapesSpec(), caption, number))
    return Video(GenerationRequest(prompt=prompt, seed=number), frames)


def test_shares_count_each_property_by_itself():
    videos = [
        rendered("a red circle moving left", 0, "a red circle moving left"),
        rendered("a red circle moving left", 1, "a red circle moving right"),
        rendered("a green square moving up", 2, "a green circle moving down"),
        rendered("a green square moving up", 3, "a blue circle moving up"),
    ]
    scored = score(ShapesScorerSpec(), videos)
    assert scored.shares == {"colour": 0.75, "shape": 0.5, "direction": 0.5}
    frames, prompts = [video.frames for video in videos], [video.request.prompt for video in videos]
    assert scored.shares == shapes.score(frames, prompts)
    assert scored.measurements[2] == {
        "prompt": "a green circle moving down",
        "seed": 2,
        "colour": "green",
        "shape": "square",
        "direction": "up",
    }


def test_pictures_of_nothing_are_wrong_in_everything():
    video = Video(GenerationRequest(prompt="a red circle moving left"), torch.zeros(9, 64, 64, 3).byte())
    assert score(ShapesScorerSpec(), [video]).shares == {"colour": 0, "shape": 0, "direction": 0}


def test_an_unknown_scorer_is_named():
    with pytest.raises(UserError, match=r"spec\.samples\.scorer: no scorer is known for UnknownScorerSpec"):
        check_scorable(UnknownScorerSpec(), [GenerationRequest(prompt="a cat")])
    check_scorable(None, [GenerationRequest(prompt="a cat")])
