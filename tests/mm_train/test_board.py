"""The board's answers: what stands on each page, what is said of what is wrong, which files are served."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from experiments import tiny_high
from mm_config import replace
from mm_config.content.inputs import Input
from mm_config.runs import Run, RunStatus
from mm_train.board.app import board_app
from mm_train.board.live import lines_after
from mm_train.board.run_page import makes_videos
from mm_train.board.runs import Board
from mm_train.report.reading import series_of
from tests.mm_train.board_runs import EVIL, MADE, PROMPT, STEPS, TEACHER, filled, line, opened
from tests.mm_train.test_sampling import SAMPLES

URL = "http://127.0.0.1:8070"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return filled(tmp_path_factory.mktemp("board") / "runs")


@pytest.fixture(scope="module")
def client(runs: dict[str, Run]) -> Iterator[TestClient]:
    with TestClient(board_app(runs["made"].path.parents[1]), base_url=URL) as client:
        yield client


def page(client: TestClient, address: str, status: int = 200) -> str:
    answer = client.get(address)
    assert answer.status_code == status, answer.text
    assert "<script>document" not in answer.text and "<img src=http" not in answer.text, (
        "a text ran as markup"
    )
    return answer.text


def listed(client: TestClient, query: str = "") -> list[str]:
    """The labels of the runs in the table, in their order."""
    return re.findall(r'type="checkbox" name="run" value="([^/]*)/', page(client, f"/{query}"))


def test_the_table_is_searched_sorted_and_shows_fields(client: TestClient) -> None:
    assert listed(client) == ["live", "failed", "made", "sibling", "teacher"]
    assert listed(client, "?where=optim.lr%3E2e-3&where=seed%3D0") == ["teacher"]
    assert listed(client, "?where=lr%3D1e-3") == ["sibling"], "by its short name"
    assert listed(client, "?q=made") == ["made"]
    assert listed(client, "?status=failed") == ["failed"]
    assert listed(client, "?status=running") == ["live"]
    assert listed(client, "?sort=name&up=1") == ["failed", "live", "made", "sibling", "teacher"]
    assert (
        listed(client, "?sort=optim.lr&up=1")[0] == "sibling"
        and listed(client, "?sort=optim.lr")[-1] == "made"
    )
    shown = page(client, "/?show=optim.lr&where=name%3Dsibling")
    assert "<td><code>0.001</code></td>" in shown and "loss <b>0.75</b>" in shown
    assert html.escape(f"RuntimeError: {EVIL}")[:60] in page(client, "/")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("where=lr~", "a value is missing"),
        ("where=optm.lr%3E1", "spec.optm.lr: no stored run has this field; did you mean spec.optim.lr?"),
        ("where=optim.lr%3Dfast", "spec.optim.lr: holds a number such as 0.001"),
        ("where=%3Cscript%3E", "a condition is FIELD"),
        ("since=soon", "&#x27;soon&#x27; is no date or time in ISO 8601"),
        ("sort=optim.rl", "spec.optim.rl: no stored run has this field"),
        ("show=optim.rl", "spec.optim.rl: no stored run has this field"),
    ],
)
def test_what_is_wrong_is_said_beside_the_runs_that_the_rest_finds(
    client: TestClient, query: str, said: str
) -> None:
    shown = page(client, f"/?where=seed%3D0&{query}")
    assert said in shown and 'role="alert"' in shown
    found = listed(client, f"?where=seed%3D0&{query}")
    assert sorted(found) == ["sibling", "teacher"], "the good condition still holds"


def test_odd_addresses_are_no_errors(client: TestClient) -> None:
    for query in (
        "page=0",
        "page=-1",
        "page=99",
        "page=x",
        "status=odd",
        "page=" + "9" * 40,
        "where=",
        "q=%00",
    ):
        assert client.get(f"/?{query}").status_code == 200, query
    assert listed(client, "?page=99") == []
    assert "no run has the id none/none" in page(client, "/runs/none/none", 404)
    assert html.escape("<b>") in page(client, "/runs/%3Cb%3E/x", 404)
    assert client.post("/").status_code == 405


def test_a_training_has_all_that_it_wrote_on_its_page(client: TestClient, runs: dict[str, Run]) -> None:
    run = runs["teacher"]
    shown = page(client, f"/runs/{run.record.path}")
    charts = dict(
        re.findall(
            r"<figcaption>([^<]*)</figcaption><div class=\"curves\"><script[^>]*>(.*?)</script>", shown
        )
    )
    loss = json.loads(charts["Loss"])
    assert loss["ys"][0] == [line(step, 3e-3)["loss"] for step in range(1, STEPS + 1)]
    assert json.loads(charts["Loss on held-out clips by noise level"])["names"] == ["sigma 0.9", "sigma 0.95"]
    assert "whole, the best, the result" in shown and shown.count("whole") == 2
    assert "decode: &lt;script&gt;" in shown, "quarantine"
    assert f"/files/{run.record.path}/samples/step-00000040/a-red-square-moving-up-7.mp4" in shown
    assert f"mm reproduce {run.record.path} --runs-dir " in html.unescape(shown)
    assert "forward" in shown and "spec.optim.lr" in shown and "command line" in shown
    damaged = next((run.checkpoints_dir / "step-00000020" / "model").iterdir())
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1])
    assert "damaged: " in page(client, f"/runs/{run.record.path}")
    damaged.write_bytes(content)


def test_an_interrupted_or_failed_run_says_why_and_how_it_goes_on(
    client: TestClient, runs: dict[str, Run]
) -> None:
    run = runs["failed"]
    shown = page(client, f"/runs/{run.record.path}")
    assert html.escape(f"RuntimeError: {EVIL}") in shown
    assert html.escape(f"python experiments/tiny_high.py --spec.name 'x y' --resume {run.path}") in shown
    assert "--resume" not in page(client, f"/runs/{runs['teacher'].record.path}")


def test_what_made_the_weights_and_what_was_made_with_them_lead_to_each_other(
    client: TestClient, runs: dict[str, Run]
) -> None:
    teacher, made = (f"/runs/{runs[name].record.path}" for name in ("teacher", "made"))
    assert f'href="{teacher}"' in page(client, made)
    below = page(client, teacher)
    assert f'href="{made}"' in below and "spec.high_noise" in below
    assert f'href="{made}"' not in page(client, f"/runs/{runs['sibling'].record.path}")
    video = page(client, f"/videos/{runs['made'].record.path}/samples/evil-7.mp4")
    assert html.escape(EVIL) in video and f'href="{made}"' in video and f'href="{teacher}"' in video


def test_a_twin_whose_weights_were_not_taken_is_not_named(tmp_path: Path) -> None:
    taken, twin = (opened(replace(TEACHER, {"name": name}), tmp_path, {}) for name in ("taken", "twin"))
    one = Input(digest="0" * 64, kind="trained-by", details={"run": taken.record.path})
    made = opened(MADE, tmp_path, {"spec.high_noise": one})
    board = Board(tmp_path)
    below = {
        run.record.name: board.children(shown)
        for run in (taken, twin)
        if (shown := board.shown(run.record.path))
    }
    assert [(link.path, link.field) for link in below["taken"]] == [(made.record.path, "spec.high_noise")]
    assert taken.record.spec_hash == twin.record.spec_hash and below["twin"] == []


def test_runs_are_laid_beside_each_other(client: TestClient, runs: dict[str, Run]) -> None:
    paths = [runs[name].record.path for name in ("teacher", "sibling")]
    shown = page(client, f"/compare?run={paths[0]}&run={paths[1]}")
    results, how = (shown.index(f"<h3>{title}") for title in ("changes what is computed", "changes only how"))
    assert results < shown.index("spec.optim.lr") < how < shown.index("spec.runtime.log_every")
    assert "spec.model.num_layers" not in shown
    assert shown.count("<td><figure><video") == 4 and PROMPT in shown and "seed 7" in shown
    assert shown.count("step-00000040") == 8 and "step-00000020" not in shown, (
        "the newest of each, as file and page"
    )
    three = page(client, f"/compare?run={paths[0]}&run={runs['made'].record.path}&run=no/such")
    assert "no/such: no run has this id" in three and three.count("<td><figure><video") == 4
    assert "Choose two runs" in page(client, "/compare") and "Choose two" in page(
        client, f"/compare?run={paths[0]}"
    )


def test_a_running_training_is_followed_by_offset(client: TestClient, runs: dict[str, Run]) -> None:
    run = runs["live"]
    shown = page(client, f"/runs/{run.record.path}")
    offset = int(re.search(r'data-offset="(\d+)"', shown)[1])  # type: ignore[index]
    ask = f"/runs/{run.record.path}/metrics?offset="
    assert client.get(f"{ask}{offset}").json() == {
        "offset": offset,
        "points": [],
        "again": False,
        "status": "running",
    }
    run.log(line(6, 3e-3))
    told = client.get(f"{ask}{offset}").json()
    assert told["points"] == [{k: v for k, v in line(6, 3e-3).items() if k != "seconds"}]
    assert client.get(f"{ask}{told['offset']}").json()["points"] == []
    assert client.get(f"{ask}{told['offset'] + 1}").json()["again"] is True
    assert client.get(f"{ask}x").status_code == 404
    every = client.get(f"{ask}0").json()["points"]
    assert {point["step"]: point["loss"] for point in every} == series_of(run.metrics_path)["loss"]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert lines_after(file, 0) == {"offset": 0, "points": [], "again": False}
    file.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    first = lines_after(file, 0)
    assert first["points"] == [{"step": 1, "loss": 0.5}] and first["offset"] == 25
    file.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n')
    assert lines_after(file, 25)["points"] == [{"step": 2, "loss": 0.25}]


def test_files_of_runs_alone_are_served(client: TestClient, runs: dict[str, Run]) -> None:
    run = runs["made"]
    root = run.path.parents[1]
    file = f"/files/{run.record.path}/samples/up-7.mp4"
    part = client.get(file, headers={"range": "bytes=0-99"})
    assert part.status_code == 206 and part.content == (run.path / "samples/up-7.mp4").read_bytes()[:100]
    secret = root.parent / "secret.json"
    secret.write_text('"secret"')
    (run.path / "link.json").symlink_to(secret)
    (run.path / "page.html").write_text("<script>alert(1)</script>")
    (root / ".cache").mkdir()
    (root / ".cache/hidden.json").write_text('"secret"')
    base = f"/files/{run.record.path}"
    for path in (
        f"{base}/link.json",
        f"{base}/page.html",
        f"{base}/../../../secret.json",
        f"{base}/..%2f..%2f..%2fsecret.json",
        "/files/../secret.json",
        "/files/%2e%2e/secret.json",
        f"/files/{secret}",
        "/files//etc/passwd",
        "/files/.cache/hidden.json",
        "/files/index.sqlite",
        f"/videos/{run.record.path}/link.json",
        "/videos/../secret.json",
    ):
        answer = client.get(path)
        assert answer.status_code == 404 and "secret" not in answer.text.replace("secret.json", ""), path
    assert client.get(f"{base}/result.json").headers["content-type"].startswith("text/plain")


def test_a_runs_folder_may_be_a_link(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["made"]
    (tmp_path / "link").symlink_to(run.path.parents[1])
    with TestClient(board_app(tmp_path / "link"), base_url=URL) as client:
        video = f"{run.record.path}/samples/up-7.mp4"
        assert f'src="/files/{video}"' in page(client, f"/videos/{video}")
        assert f"/files/{video}" in page(client, f"/runs/{run.record.path}")


def test_a_run_that_cannot_be_read_is_shown_as_far_as_it_can(
    client: TestClient, runs: dict[str, Run]
) -> None:
    run = runs["sibling"]
    metrics = run.metrics_path.read_bytes()
    run.metrics_path.write_bytes(b"no line\n" + metrics)
    shown = page(client, f"/runs/{run.record.path}")
    assert "metrics.jsonl:1: is no line of metrics" in shown and "spec.optim.lr" in shown
    run.metrics_path.write_bytes(metrics)


def test_the_policy_and_the_name_of_the_host_are_kept(client: TestClient) -> None:
    answer = client.get("/")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert (
        not re.search(r"<script(?![^>]*(src=|application/json))", answer.text) and "style=" not in answer.text
    )
    with httpx2.Client(transport=client._transport, base_url="http://evil.example") as other:  # type: ignore[attr-defined]
        assert other.get("/").status_code == 421


def test_a_run_that_makes_videos_shows_how(client: TestClient, runs: dict[str, Run]) -> None:
    pages = {name: page(client, f"/runs/{run.record.path}") for name, run in runs.items()}
    offered = {name: "--out video.mp4" in shown for name, shown in pages.items()}
    # The other trainings say no samples, so nothing says how their videos are made.
    assert offered == {name: name == "made" for name in runs}


@pytest.mark.parametrize(
    ("changes", "status", "makes"),
    [
        ({}, RunStatus.FINISHED, False),
        ({"samples": SAMPLES}, RunStatus.FINISHED, True),
        ({"samples": SAMPLES}, RunStatus.RUNNING, False),
        ({"samples": replace(SAMPLES, "other_expert", None)}, RunStatus.FINISHED, False),
    ],
)
def test_a_training_makes_videos_once_it_can(changes: dict[str, Any], status: RunStatus, makes: bool) -> None:
    assert makes_videos(replace(tiny_high.SPEC, changes), status) is makes
