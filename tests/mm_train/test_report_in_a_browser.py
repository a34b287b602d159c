"""The report in Chromium: curves are drawn and tuned, samples play, nothing is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mm_train
from experiments import tiny_high
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.runs import attach
from mm_data.video.writing import write_mp4
from mm_train.report.page import html_of
from mm_train.report.reading import told_by
from tests.browsing import opened
from tests.mm_train.conftest import SMALL

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(runs_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = replace(tiny_high.SPEC, {**SMALL, "schedule.steps": 3, "schedule.warmup_steps": 1, "name": "seen"})
    result = mm_train.train(spec, RunOptions(runs_dir=runs_dir))
    folder = result.run_dir / "samples" / "step-00000003"
    folder.mkdir(parents=True)
    frames = np.zeros((9, 32, 32, 3), dtype=np.uint8)
    frames[:, 8:24, 8:24, 0] = 255
    write_mp4(folder / "a red square-0.mp4", frames, 8)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html_of([told_by(attach(result.run_dir))]), "utf-8")
    return path


def test_the_report_is_drawn_and_asks_for_nothing(page: Path) -> None:
    with opened(page) as seen:
        headings = ["How it went", "Time by part", "All time, over all processes", "Samples", "Spec"]
        assert seen.page.locator("h2").all_inner_texts() == headings
        curves = seen.page.locator(".curves canvas")
        assert curves.count() >= 5
        video = seen.page.locator("video")
        played = """async video => {
            video.muted = true;
            await video.play();
            await new Promise(done => video.addEventListener("timeupdate", done, { once: true }));
            return [video.videoWidth, video.videoHeight, video.duration > 1];
        }"""
        assert video.evaluate(played) == [32, 32, True]
        wide = "document.documentElement.scrollWidth <= innerWidth"
        assert seen.page.evaluate(wide), "nothing stands outside of the window"
    assert (seen.said, seen.asked) == ([], [])


def test_smoothing_and_the_scale_change_what_is_drawn(page: Path) -> None:
    with opened(page, dark=True) as seen:
        figure = seen.page.locator("figure").filter(has_text="Loss").first

        def drawn() -> str:
            return figure.locator("canvas").evaluate("canvas => canvas.toDataURL()")

        plain = drawn()
        seen.page.get_by_label("smoothing").fill("0.9")
        smooth = drawn()
        seen.page.get_by_label("logarithmic").check()
        assert len({plain, smooth, drawn()}) == 3
        seen.page.get_by_label("logarithmic").uncheck()
        seen.page.get_by_label("smoothing").fill("0")
        assert drawn() == plain
    assert (seen.said, seen.asked) == ([], [])
