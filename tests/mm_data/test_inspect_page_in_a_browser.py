"""The page of an inspection in Chromium: pictures are there, filters choose clips, captions stay text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mm_config.specs import DataSpec
from mm_data.looking.inspection import inspected
from mm_data.looking.page import html_of
from mm_data.looking.subject import Subject
from tests.browsing import opened
from tests.mm_data.looked import EVIL, indexed

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, data_spec: Callable[..., DataSpec]) -> Path:
    folder = tmp_path_factory.mktemp("looked")
    data = data_spec(num_frames=9, height=64, width=96, fps=8.0, max_aspect_ratio=3.0)
    found = inspected(Subject("own clips", data.dataset, indexed(folder), data, 0), 200)
    path = folder / "page.html"
    path.write_text(html_of(found), "utf-8")
    return path


def test_the_page_is_whole_and_runs_no_caption(page: Path) -> None:
    with opened(page) as seen:
        rows = seen.page.locator("table.rows").last.locator("tbody tr")
        assert rows.count() == 6
        sizes = "pictures => pictures.map(one => [one.naturalWidth, one.naturalHeight])"
        assert seen.page.locator("td img").evaluate_all(sizes) == [
            [96, 64],
            [128, 32],
            [96, 64],
            [64, 96],
            [96, 64],
            [96, 64],
        ]
        assert rows.first.locator("td").nth(2).inner_text() == EVIL
        assert seen.page.title() == "own clips"
        headings = seen.page.locator("h2").all_inner_texts()
        assert headings == ["What is left out", "Buckets", "Sizes and lengths", "Twice", "Clips"]
        assert seen.page.locator("figure").filter(has_text="sizes, width x height").is_visible()
        assert seen.page.locator(".curves canvas").count() == 1
        wide = "document.documentElement.scrollWidth <= innerWidth"
        assert seen.page.evaluate(wide), "nothing stands outside of the window"
    assert (seen.said, seen.asked) == ([], [])


def test_filters_choose_clips(page: Path) -> None:
    with opened(page, dark=True, width=700) as seen:
        clips = seen.page.locator("table.rows").last

        def names() -> list[str]:
            return clips.locator("tbody tr:visible td:nth-child(2)").all_inner_texts()

        seen.page.get_by_label("becomes").select_option("9x64x96")
        assert names() == ["long.mp4", "tall.mp4", "copy.mp4", "again.mp4"]
        clips.get_by_role("button", name="seconds").click()
        assert names() == ["tall.mp4", "long.mp4", "copy.mp4", "again.mp4"]
        seen.page.get_by_label("seconds from").fill("2")
        assert names() == ["long.mp4", "copy.mp4", "again.mp4"]
        seen.page.get_by_label("search").last.fill("red circle")
        assert names() == ["copy.mp4"]
    assert (seen.said, seen.asked) == ([], [])
