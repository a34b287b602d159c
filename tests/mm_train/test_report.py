"""`mm report`: what stands on the page, against what the runs wrote."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mm_train
from experiments import tiny_high
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.runs import attach
from mm_config.schema.errors import UserError
from mm_config.specs import TrainedBy
from mm_config.specs.monitoring import ValidationSpec
from mm_data.video.writing import write_mp4
from mm_train import TrainResult
from mm_train.report.page import html_of
from mm_train.report.reading import series_of, told_by
from mm_train.verbs.report import VERB
from tests.mm_train.conftest import SMALL

SHORT = replace(tiny_high.SPEC, {**SMALL, "schedule.steps": 4, "schedule.warmup_steps": 1})


@pytest.fixture(scope="module")
def parent(runs_dir: Path) -> TrainResult:
    """Validated on its way, with two videos that it made."""
    validated = ValidationSpec(every_steps=2, batches=1, holdout=0.4, sigmas=(0.9, 0.95))
    spec = replace(SHORT, {"name": "parent", "validation": validated})
    result = mm_train.train(spec, RunOptions(runs_dir=runs_dir))
    for step in (2, 4):
        folder = result.run_dir / "samples" / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        frames = np.full((9, 32, 32, 3), 40 * step, dtype=np.uint8)
        write_mp4(folder / "a red circle-0.mp4", frames, 8)
    return result


@pytest.fixture(scope="module")
def child(runs_dir: Path, parent: TrainResult) -> TrainResult:
    start = TrainedBy(spec=attach(parent.run_dir).spec)
    spec = replace(SHORT, {"name": "child", "start_from": start, "optim.lr": 2e-3})
    return mm_train.train(spec, RunOptions(runs_dir=runs_dir))


def test_all_time_of_a_run_is_shown(parent: TrainResult) -> None:
    told = told_by(attach(parent.run_dir))
    assert told.account is not None
    shown = html_of([told]).split("All time, over all processes")[1]
    assert f"{told.name}: {told.account.whole:,.0f} s, 1 start" in shown
    assert "checkpoints: saving the state" in shown


def charts_of(page: str) -> dict[str, Any]:
    """What each chart draws by its title, as the page's script reads it."""
    figures = re.findall(
        r"<figcaption>([^<]*)</figcaption><div class=\"curves\"><script[^>]*>(.*?)</script>", page
    )
    assert figures
    return {title: json.loads(told) for title, told in figures}


def cells(*texts: str) -> str:
    return "".join(f'<td class="text">{text}</td>' for text in texts)


def lines_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_curves_are_the_numbers_of_the_runs(parent: TrainResult, child: TrainResult) -> None:
    page = html_of([told_by(attach(one.run_dir)) for one in (parent, child)])
    charts = charts_of(page)
    names = ["/".join(one.run_dir.parts[-2:]) for one in (parent, child)]
    loss = charts["Loss"]
    assert loss["names"] == names and loss["x"] == [1, 2, 3, 4]
    assert loss["ys"] == [
        [line["loss"] for line in lines_of(one.run_dir) if "loss" in line] for one in (parent, child)
    ]
    levels = charts[f"Loss on held-out clips by noise level of {names[0]}"]
    told = [line["validation"]["by_sigma"] for line in lines_of(parent.run_dir) if "validation" in line]
    assert levels["names"] == ["sigma 0.9", "sigma 0.95"] and levels["x"] == [2, 4]
    assert levels["ys"] == [[one["0.9"] for one in told], [one["0.95"] for one in told]]


def test_differences_from_the_parent_and_the_spec_stand_there(
    parent: TrainResult, child: TrainResult
) -> None:
    page = html_of([told_by(attach(child.run_dir))])
    start = page.index("What differs in child/")
    differences = page[start : page.index("</section>", start)]
    assert (
        '<td class="text">spec.optim.lr</td><td class="text">0.005</td><td class="text">0.002</td>'
        in differences
    )
    assert "spec.model.num_layers" not in differences
    assert '<td class="text">spec.model.num_layers</td><td class="text">2</td>' in page


def test_samples_are_in_the_page_newest_first(parent: TrainResult) -> None:
    page = html_of([told_by(attach(parent.run_dir))])
    inside = [base64.b64decode(one) for one in re.findall(r"data:video/mp4;base64,([^\"]+)", page)]
    files = [parent.run_dir / f"samples/step-{step:08d}/a red circle-0.mp4" for step in (4, 2)]
    assert inside == [file.read_bytes() for file in files]
    assert page.index("after step 4") < page.index("after step 2")


def test_a_run_on_its_way_is_shown_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1, "loss": 0.5}\n{"step": 1, "validation": {"loss": 0.25}}\n{"step": 2, "lo')
    assert series_of(metrics) == {"loss": {1: 0.5}, "validation/loss": {1: 0.25}}
    metrics.write_text('{"step": 1, "loss": 0.5}\nx\n{"step": 2, "loss": 0.4}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: is no line of metrics"):
        series_of(metrics)


def test_the_verb_writes_the_page_or_says_what_is_wrong(
    parent: TrainResult, runs_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, where = tmp_path / "report.html", ["--runs-dir", str(runs_dir)]
    assert VERB.run([str(parent.run_dir), "--out", str(out), *where]) == 0
    assert "Loss on held-out clips" in out.read_text("utf-8")
    assert str(out) in capsys.readouterr().out
    for words, said in (
        ([str(parent.run_dir)], "--out: is missing"),
        (["nothing-like-this", "--out", str(out)], "nothing-like-this"),
        ([str(parent.run_dir), "--out", str(tmp_path / "x.txt")], "ends in .html"),
    ):
        with pytest.raises(UserError, match=said):
            VERB.run([*words, *where])
