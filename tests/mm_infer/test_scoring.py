"""The score: measured from pixels, counted against prompts."""

from __future__ import annotations

import pytest
import torch

from mm_config import replace
from mm_config.schema.decorator import spec
from mm_config.schema.errors import UserError
from mm_config.specs.datasets import ShapesScorerSpec, ShapesSpec
from mm_config.specs.kinds import ScorerSpec
from mm_config.specs.requests import GenerationRequest, SamplesSpec
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
    prompts = [video.request.prompt for video in videos]
    scored = score(ShapesScorerSpec(), videos, prompts)
    assert scored.shares == {"colour": 0.75, "shape": 0.5, "direction": 0.5}
    assert scored.shares == shapes.score([video.frames for video in videos], prompts)
    assert scored.measurements[2] == {
        "prompt": "a green circle moving down",
        "seed": 2,
        "asked_for": "a green circle moving down",
        "colour": "green",
        "shape": "square",
        "direction": "up",
    }


def test_pictures_of_nothing_are_wrong_in_everything():
    video = Video(GenerationRequest(prompt="a red circle moving left"), torch.zeros(9, 64, 64, 3).byte())
    assert score(ShapesScorerSpec(), [video], [video.request.prompt]).shares == {
        "colour": 0,
        "shape": 0,
        "direction": 0,
    }


def test_what_is_wanted_counts_where_the_prompt_does_not_say_it_all():
    wanted = ("a white square moving up", "a red circle moving down")
    samples = SamplesSpec(
        prompts=("moving up", "moving down"), seeds=(1, 2), wanted=wanted, scorer=ShapesScorerSpec()
    )
    check_scorable(samples)
    assert samples.asked_for == (wanted[0], wanted[0], wanted[1], wanted[1])
    shown = ("a white square moving up", "a white circle moving up", wanted[1], wanted[1])
    videos = [
        Video(request, torch.from_numpy(shapes.render(ShapesSpec(), one, 0)))
        for request, one in zip(samples.requests, shown, strict=True)
    ]
    scored = score(ShapesScorerSpec(), videos, samples.asked_for)
    assert scored.shares == {"colour": 1.0, "shape": 0.75, "direction": 1.0}
    assert [one["asked_for"] for one in scored.measurements] == list(samples.asked_for)


def test_a_wish_that_can_not_be_judged_is_named():
    samples = SamplesSpec(prompts=("a red circle moving up",), wanted=("a cat",), scorer=ShapesScorerSpec())
    with pytest.raises(UserError, match=r"spec\.samples\.wanted: can't score 'a cat'"):
        check_scorable(samples)
    with pytest.raises(UserError, match=r"spec\.samples\.prompts: can't score 'moving up'"):
        check_scorable(replace(samples, {"prompts": ("moving up",), "wanted": ()}))


def test_an_unknown_scorer_is_named():
    with pytest.raises(UserError, match=r"spec\.samples\.scorer: no scorer is known for UnknownScorerSpec"):
        check_scorable(SamplesSpec(prompts=("a cat",), scorer=UnknownScorerSpec()))
    check_scorable(SamplesSpec(prompts=("a cat",)))
