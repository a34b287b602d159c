"""`mm diff`: by role, into trainings, as JSON, and its exit status."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from experiments import tiny_high, tiny_low
from mm_config import exact_hash, replace, spec_hash
from tests.mm_config.mm_in_process import HIGH, LOW, TINY, mm


def test_diff_groups_by_role_and_its_status_tells(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--spec.lr", "1e-4", "--spec.num-frames", "13", "--spec.workers", "3", "--spec.name", "x")
    changed = replace(tiny_high.SPEC, {"optim.lr": 1e-4, "data.num_frames": 13, "data.workers": 3})
    first, second = (
        f"spec {spec_hash(one)[:12]}  exact {exact_hash(one)[:12]}  train  {HIGH}"
        for one in (tiny_high.SPEC, changed)
    )
    assert mm(capsys, "diff", HIGH, HIGH, *flags, status=1).splitlines() == [
        f"first   {first}",
        f"second  {second} {' '.join(flags)}",
        "",
        "spec_hash differs: 2 changes to the mathematics and the data order",
        "exact_hash differs",
        "",
        "changes what is computed (in spec_hash and exact_hash)",
        "  spec.data.num_frames  17 -> 13 frames  data order",
        f"  spec.optim.lr         {tiny_high.SPEC.optim.lr} -> 0.0001  mathematics",
        "",
        "changes only how it is computed (in exact_hash alone)",
        "  spec.data.workers     2 -> 3",
        "",
        "changes names and paths (in no hash)",
        "  spec.name             'tiny_high' -> 'x'",
    ]


def test_diff_of_equal_specs(capsys: pytest.CaptureFixture[str]) -> None:
    assert mm(capsys, "diff", HIGH, HIGH).endswith("\n\nequal in every field\n")
    assert mm(capsys, "diff", HIGH, HIGH, "--spec.name", "x").splitlines()[3:] == [
        "spec_hash is equal: both compute the same, in exact arithmetic",
        "exact_hash is equal: both compute it in the same way",
        "",
        "changes names and paths (in no hash)",
        "  spec.name  'tiny_high' -> 'x'",
    ]
    page = mm(capsys, "diff", HIGH, HIGH, "--spec.workers", "9", status=1)
    assert "\nexact_hash differs: only how it is computed\n" in page


def test_diff_looks_into_trainings_that_weights_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--spec.high_noise.spec.optim.lr", "1e-4")
    page = mm(capsys, "diff", TINY, TINY, *flags, status=1)
    assert f"  spec.high_noise.spec.optim.lr  {tiny_high.SPEC.optim.lr} -> 0.0001  mathematics\n" in page
    # How a training was carried out is in no hash of what uses its outcome.
    page = mm(capsys, "diff", TINY, TINY, "--spec.low_noise.spec.data.workers", "7")
    assert page.endswith(
        "\nchanges how a training that weights come from was computed (in no hash)\n"
        "  spec.low_noise.spec.data.workers  2 -> 7\n"
    )


def test_diff_of_different_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    page = mm(capsys, "diff", HIGH, TINY, "--spec.device", "cpu", status=1)
    lines = page.splitlines()
    assert lines[3] == "different kinds, train and infer: only the fields that both have are compared"
    assert "  spec.runtime.device         'auto' -> 'cpu'" in lines
    assert "only in the first" in lines
    assert "only in the second" in lines
    report = json.loads(mm(capsys, "diff", HIGH, TINY, "--json", status=1))
    assert report["kind"] == ["train", "infer"]
    assert (report["changes"][0]["old"], report["changes"][0]["new"]) == ("train", "infer")
    assert "spec.optim" in report["only_in"][0]
    assert "spec.sampler" in report["only_in"][1]


def test_diff_shows_where_long_texts_differ(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    old, new = "a " * 100 + "cat" + " b" * 100, "a " * 100 + "dog" + " b" * 100
    start = ("--spec.negative-prompt", old)
    saved = mm(capsys, "show", TINY, "--format", "json", *start)
    report = mm_diff_of_texts(capsys, saved, new)
    first, second = (line.strip() for line in report.splitlines() if "cat" in line or "dog" in line)
    assert first.startswith("spec.negative_prompt  ...'")
    assert second.startswith("-> ...'")
    assert second.endswith("requests")
    assert "a cat b" in first
    assert "a dog b" in second
    assert max(len(first), len(second)) <= 78


def mm_diff_of_texts(capsys: pytest.CaptureFixture[str], saved: str, text: str) -> str:
    """The changed fields of a saved spec with another negative prompt, without the sides' labels."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "spec.json")
        path.write_text(saved)
        page = mm(capsys, "diff", str(path), str(path), "--spec.negative-prompt", text, status=1)
    return page.partition("changes what is computed")[2]


def test_diff_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(mm(capsys, "diff", HIGH, LOW, "--json", status=1))
    assert report["equal"] is False
    assert report["spec_hash"] == [spec_hash(tiny_high.SPEC), spec_hash(tiny_low.SPEC)]
    assert report["only_in"] == [[], []]
    by_path = {change["path"]: change for change in report["changes"]}
    assert by_path["spec.expert"] == {
        "path": "spec.expert",
        "role": "semantic",
        "old": "high_noise",
        "new": "low_noise",
        "unit": None,
        "effect": "mathematics",
        "by_hash": False,
    }
    assert by_path["spec.start_from"]["new"]["kind"] == "trained-by"
    assert by_path["spec.runtime.build_missing"]["effect"] == "execution"
