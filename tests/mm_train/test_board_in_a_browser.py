"""The board in Chromium, walked through as a person would: found, followed, compared, watched, traced."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from mm_config.runs import Run
from tests.browsing import Seen, faults_of, visited
from tests.mm_train.board_runs import EVIL, PROMPT, filled, line

pytestmark = pytest.mark.browser
PLAYED = """async video => {
    video.muted = true;
    await video.play();
    await new Promise(done => video.addEventListener("timeupdate", done, { once: true }));
    return [video.videoWidth, video.videoHeight, video.duration > 1];
}"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return filled(tmp_path_factory.mktemp("board") / "runs")


@pytest.fixture(scope="module")
def url(runs: dict[str, Run]) -> Iterator[str]:
    """The board of `mm board`, in a process of its own, which ends by Ctrl-C."""
    command = [
        str(Path(sys.executable).with_name("mm")),
        "board",
        str(runs["made"].path.parents[1]),
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield server.stdout.readline().split()[0]
        server.terminate()
        assert server.wait(timeout=30) == 0 and server.stderr and server.stderr.read() == ""


def clean(seen: Seen) -> None:
    """Nothing went wrong on the way, and nothing left the machine."""
    assert (seen.said, seen.asked) == ([], [])


def test_a_person_finds_compares_watches_and_traces(url: str, runs: dict[str, Run]) -> None:
    with visited(url) as seen:
        page = seen.page
        page.set_default_timeout(60_000)
        page.get_by_label("condition").fill("optim.lr>=1e-3")
        page.keyboard.press("Enter")
        expect(page.locator("tbody tr")).to_have_count(4)
        page.get_by_label("condition").fill("optm.lr>1")
        page.get_by_role("button", name="Filter").click()
        expect(page.get_by_role("alert")).to_contain_text("did you mean spec.optim.lr?")
        page.get_by_role("link", name="without optim.lr>=1e-3").click()
        for name in ("teacher", "sibling"):
            page.get_by_label(f"choose {runs[name].record.path}").check()
        expect(page.locator("output").first).to_have_text("2 chosen")
        page.get_by_role("button", name="Compare").click()
        expect(page.get_by_role("heading", name="2 runs beside each other")).to_be_visible()
        expect(page.get_by_role("region", name="runs beside each other").nth(1)).to_contain_text(
            "spec.optim.lr"
        )
        loss = page.locator("figure").filter(has_text="Loss").first
        expect(loss.locator("canvas")).to_be_visible()
        expect(loss.locator(".u-legend")).to_contain_text("sibling")
        row = page.get_by_role("row").filter(has_text=PROMPT)
        assert row.locator("video").first.evaluate(PLAYED) == [32, 32, True]
        row.get_by_role("link", name="after step 40").last.click()
        expect(page.locator("video")).to_be_visible()
        page.get_by_role("link", name="teacher").click()
        page.get_by_role("link", name="made").click()
        expect(page.locator("h1")).to_contain_text("made")
        page.get_by_role("link", name="evil-7").click()
        expect(page.get_by_text(EVIL)).to_be_visible()
        assert page.locator("video").evaluate(PLAYED) == [32, 32, True]
        page.get_by_role("link", name="teacher").click()
        expect(page.locator("h1")).to_contain_text("teacher")
        assert page.title().endswith("mm board")
        clean(seen)


def test_the_curves_of_a_running_training_grow(url: str, runs: dict[str, Run]) -> None:
    run = runs["live"]
    with visited(f"{url}/runs/{run.record.path}", dark=True) as seen:
        lines = "toldBy(document.querySelector('#curves .curves')).x.length"
        before = seen.page.evaluate(lines)
        for step in range(before + 1, before + 4):
            run.log(line(step, 3e-3))
        for _ in range(600):
            if seen.page.evaluate(lines) == before + 3:
                break
            seen.page.wait_for_timeout(100)
        assert seen.page.evaluate(lines) == before + 3
        run.log({"step": before + 3, "validation": {"loss": 0.5, "by_sigma": {"0.9": 0.5}}})
        expect(seen.page.get_by_text("Loss on held-out clips", exact=True)).to_be_visible(timeout=60_000)
        run.finish({"kind": "train", "loss": 0.5, "steps": before + 3, "seconds": 1.0})
        expect(seen.page.locator("#state")).to_contain_text("finished", timeout=60_000)
        clean(seen)


def test_the_table_is_walked_by_keys(url: str) -> None:
    with visited(url) as seen:
        for key in ("j", "x", "j", "x", "c"):
            seen.page.keyboard.press(key)
        expect(seen.page.get_by_role("heading", name="2 runs beside each other")).to_be_visible()
        seen.page.goto(url)
        seen.page.keyboard.press("/")
        expect(seen.page.get_by_label("condition")).to_be_focused()
        clean(seen)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_page_can_be_used_by_everyone(url: str, runs: dict[str, Run], dark: bool, width: int) -> None:
    teacher, sibling, made = (runs[name].record.path for name in ("teacher", "sibling", "made"))
    addresses = (
        "/?where=optm.lr%3E1&show=optim.lr",
        f"/runs/{teacher}",
        f"/compare?run={teacher}&run={sibling}",
        f"/videos/{made}/samples/up-7.mp4",
    )
    with visited(url, dark=dark, width=width) as seen:
        for address in addresses:
            seen.page.goto(url + address)
            assert faults_of(seen.page) == [], address
            wide = seen.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{address} stands outside of the window"
        clean(seen)
