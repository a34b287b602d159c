"""The page on MindSpeed-MM shows their files, our experiment and the report as they are."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from mm_config.cli.app import app

DATA = Path(__file__).parent / "data"
PAGE = Path(__file__).parents[3] / "docs" / "coming_from_mindspeed.md"
FILES = {
    "model.json": "seed_model.json",
    "data.json": "data.json",
    "fsdp2_config.yaml": "fsdp2_config.yaml",
    "pretrain_high.sh": "seed_pretrain_high.sh",
}
LANGUAGES = {".json": "json", ".yaml": "yaml", ".sh": "bash"}


def block(name: str, text: str) -> str:
    """A part of the page, between its comment and the next heading or paragraph."""
    return f"<!-- {name} -->\n{text}<!-- end of {name} -->\n"


def parts(folder: Path) -> dict[str, str]:
    """What is shown: files, the experiment, the report."""
    (folder / "experiments").mkdir()
    for shown, name in FILES.items():
        (folder / shown).write_text((DATA / name).read_text("utf-8"), "utf-8")
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert app(["import", "mindspeed", *FILES, "--out", "experiments/mine.py"]) == 0
    theirs = ""
    for shown in FILES:
        text = (folder / shown).read_text("utf-8").rstrip()
        theirs += f"\n`{shown}`\n\n```{LANGUAGES[Path(shown).suffix]}\n{text}\n```\n"
    ours = (folder / "experiments" / "mine.py").read_text("utf-8")
    command = f"$ mm import mindspeed {' '.join(FILES)} --out experiments/mine.py"
    return {
        "files": f"{theirs}\n",
        "experiment": f"\n```python\n{ours}```\n\n",
        "report": f"\n```console\n{command}\n{printed.getvalue()}```\n\n",
    }


def test_the_page_shows_a_real_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: bool) -> None:
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text("utf-8")
    made = page
    for name, text in parts(tmp_path).items():
        shown = re.compile(rf"<!-- {name} -->\n(?:.*?<!-- end of {name} -->\n)?", re.DOTALL)
        assert shown.search(made), name
        made = shown.sub(lambda _, name=name, text=text: block(name, text), made)
    if update:
        PAGE.write_text(made, "utf-8")
        page = made
    assert page == made
