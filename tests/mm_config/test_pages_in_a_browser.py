"""Pages in Chromium: they ask for nothing, say nothing, and their tables sort and filter."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from mm_config.pages import Column, bars, curves, page, section, table
from tests.browsing import opened

pytestmark = pytest.mark.browser
EVIL = "<script>document.title = 'taken'</script><img src=http://example.invalid/x onerror=alert(1)>"
COLUMNS = [Column("caption"), Column("seconds", "number"), Column("state", "choice")]
ROWS = [[EVIL, 10.0, "used"], ["a red circle", 9.5, "too short"], ["a blue square", None, "used"]]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    parts = (
        bars("why", [(EVIL, 3), ("short", 1)]),
        curves("kept", [1.0, 10.0, 100.0], {"clips": [1.0, 0.5, 0.1]}, x_label="seconds", log_x=True),
        section("clips", table(COLUMNS, ROWS)),
    )
    path.write_text(page("clips", *parts), "utf-8")
    return path


def column(page: Page, at: int) -> list[str]:
    """The texts of a column's rows that are seen, in their order."""
    rows = page.locator("table.rows tbody tr:visible")
    return rows.locator(f"td:nth-child({at})").all_inner_texts()


def test_a_page_asks_for_nothing_and_runs_no_text(written: Path) -> None:
    with opened(written) as seen:
        assert column(seen.page, 1)[0] == EVIL
        assert seen.page.title() == "clips" and seen.page.locator("td img").count() == 0
        assert seen.page.locator(".curves canvas").count() == 1
    assert (seen.said, seen.asked) == ([], [])


def test_what_got_into_the_markup_would_neither_run_nor_load(written: Path) -> None:
    """The policy alone: the same page with a text that was not escaped, and again without its policy."""
    text = written.read_text("utf-8").replace("a red circle", EVIL)
    written.write_text(text, "utf-8")
    with opened(written) as seen:
        assert seen.page.title() == "clips"
    assert seen.asked == [] and any("Content Security Policy" in said for said in seen.said)
    written.write_text(text.replace("Content-Security-Policy", "nothing"), "utf-8")
    with opened(written) as seen:
        assert seen.page.title() == "taken"
    assert any("example.invalid" in line for line in seen.asked)


def test_tables_sort_and_filter(written: Path) -> None:
    with opened(written, dark=True) as seen:
        seconds = seen.page.get_by_role("button", name="seconds")
        seconds.click()
        assert column(seen.page, 2) == ["9.5", "10", ""]
        seconds.click()
        assert column(seen.page, 2) == ["10", "9.5", ""]
        seen.page.get_by_label("state").select_option("used")
        assert column(seen.page, 3) == ["used", "used"]
        seen.page.get_by_label("search").fill("BLUE")
        assert column(seen.page, 1) == ["a blue square"]
        assert seen.page.locator("output").inner_text() == "1 of 3 rows"
        seen.page.get_by_label("search").fill("")
        seen.page.get_by_label("state").select_option("all")
        seen.page.get_by_label("seconds from").fill("9.6")
        assert column(seen.page, 2) == ["10"]
        background = "getComputedStyle(document.body).backgroundColor"
        assert seen.page.evaluate(background) == "rgb(20, 22, 26)"
    assert (seen.said, seen.asked) == ([], [])
