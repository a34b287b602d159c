"""The page on TeleFuser shows what the code says; `pytest --update` writes it anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mm_config.cli.app import app
from scripts.write_docs import TELEFUSER, with_parts

SEED = Path(__file__).parent / "data" / "telefuser_seed.json"


def block(kind: str, text: str) -> str:
    return f"```{kind}\n{text.strip()}\n```"


def test_the_page_shows_what_the_code_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], update: bool
) -> None:
    shutil.copy(SEED, tmp_path / "pipeline_config.json")
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)
    command = "import telefuser pipeline_config.json --out experiments/city.py"
    assert app(command.split()) == 0
    report = capsys.readouterr().out
    (run,) = [line for line in report.splitlines() if line.startswith("run it")]
    parts = {
        "dump": block("json", SEED.read_text("utf-8")),
        "experiment": block("python", (tmp_path / "experiments" / "city.py").read_text("utf-8")),
        "report": block("text", f"$ mm {command}\n{report}"),
        "run": block("bash", run.removeprefix("run it").strip().replace(" --l", " \\\n    --l")),
    }
    page = with_parts(TELEFUSER.read_text("utf-8"), parts)
    if update:
        TELEFUSER.write_text(page, "utf-8")
    assert TELEFUSER.read_text("utf-8") == page
