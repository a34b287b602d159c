"""What docs/image_to_video.md shows, carried out: its experiment, its image and its commands."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import av
import pytest

from mm_config.cli.app import app
from mm_data import read_comment

PAGE = Path(__file__).parents[2] / "docs/image_to_video.md"
FAST = """
FAST = {
    "schedule.steps": 2,
    "schedule.warmup_steps": 1,
    "data.batch_size": 4,
    "data.dataset.clips_per_caption": 1,
    "model.hidden_size": 32,
    "model.num_attention_heads": 2,
    "model.num_layers": 1,
    "model.ffn_dim": 32,
}
MODEL = {path: value for path, value in FAST.items() if path.startswith("model.")}
GIVEN ="""


def blocks(language: str) -> list[str]:
    """The code of the page's last section."""
    section = PAGE.read_text("utf-8").rpartition("\n## ")[2]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@pytest.mark.slow
def test_the_pages_commands_train_and_generate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    experiment, image = blocks("python")
    # The page's experiment, but for the width of its networks and the length of its trainings.
    for old, new in (
        ("GIVEN =", FAST),
        ("tiny_high.SPEC, {", "tiny_high.SPEC, {**FAST, "),
        ("tiny_low.SPEC, {", "tiny_low.SPEC, {**FAST, "),
        ("        **GIVEN,\n", "        **GIVEN,\n        **MODEL,\n        'sampler.steps': 2,\n"),
    ):
        assert experiment.count(old) == 1
        experiment = experiment.replace(old, new)
    Path("moving.py").write_text(experiment)
    exec(compile(image, "image", "exec"), {})
    (commands,) = blocks("bash")
    for line in commands.splitlines():
        program, *words = shlex.split(line)
        if program == "python":
            monkeypatch.setattr(sys, "argv", words)
            runpy.run_path(words[0], run_name="__main__")
        else:
            assert app(words) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "a red circle moving left" in shown
    made = next(
        path
        for path in Path("runs").glob("moving/*/result.json")
        if path.with_name("contact_sheet.png").exists()
    )
    (video,) = json.loads(made.read_text())["videos"]
    inputs = json.loads((made.parent / "inputs.json").read_text())
    assert "spec.samples.images.0" in json.dumps(inputs)
    for path in (Path(video["path"]), Path("left.mp4"), *sorted(Path("both").iterdir())):
        with av.open(path) as opened:
            (stream,) = opened.streams.video
            assert (stream.frames, stream.height, stream.width) == (17, 64, 64)
        assert json.loads(read_comment(path) or "")["request"]["spec"]["image"] == "ball.png"
