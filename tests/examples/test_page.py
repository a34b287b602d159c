"""The page on new models shows the files as they are, and its code works."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from experiments import custom_dit
from mm_config.planning.plan import plan
from mm_config.rules import check
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import RandomWeights, TrainedBy

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "new_model.md").read_text("utf-8")
FILES = ("examples/custom_dit/spec.py", "examples/custom_dit/network.py", "experiments/custom_dit.py")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_shows_the_files_as_they_are() -> None:
    assert blocks("python")[: len(FILES)] == [(ROOT / file).read_text("utf-8") for file in FILES]


def test_the_page_shows_the_registration_as_it_is() -> None:
    (shown,) = blocks("toml")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    assert tomllib.loads(shown)["project"]["entry-points"] == declared


def spec_of(block: str) -> Any:
    names: dict[str, Any] = {"__name__": "page"}
    exec(block, names)
    return names["SPEC"]


def test_its_generation_makes_videos_of_the_training() -> None:
    made = spec_of(blocks("python")[-1])
    assert isinstance(made, InferSpec) and made.high_noise == TrainedBy(spec=custom_dit.SPEC)
    check(made)


def test_the_tutorial_s_own_values_are_a_training_that_can_be_planned() -> None:
    made = spec_of(blocks("python")[len(FILES)])
    assert isinstance(made, TrainSpec)
    check(made, world_size=8)
    assert made.model.in_channels == made.autoencoder.latent_channels == 16
    assert made.start_from == RandomWeights()
    assert plan(made, 8, "atlas-a2").fits
