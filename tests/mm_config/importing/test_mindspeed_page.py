"""The page on MindSpeed-MM shows their files, our experiment and the report as they are."""

from __future__ import annotations

import io
import textwrap
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from mm_config.cli.app import app
from scripts.write_docs import DOCS, with_parts

DATA = Path(__file__).parent / "data"
PAGE = DOCS / "coming_from_mindspeed.md"
FILES = {
    "model.json": "seed_model.json",
    "data.json": "data.json",
    "fsdp2_config.yaml": "fsdp2_config.yaml",
    "pretrain_high.sh": "seed_pretrain_high.sh",
}
UNBROKEN: dict[str, Any] = {
    "subsequent_indent": "    ",
    "break_long_words": False,
    "break_on_hyphens": False,
}
LANGUAGES = {".json": "json", ".yaml": "yaml", ".sh": "bash"}


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
    told = dict(line.split("  ", 1) for line in printed.getvalue().splitlines()[1:4])
    commands = [textwrap.fill(told[name].strip(), 110, **UNBROKEN) for name in ("plan it", "run it")]
    return {
        "run": "\n```bash\n" + "\n".join(commands).replace("\n  ", " \\\n  ") + "\n```\n\n",
        "files": f"{theirs}\n",
        "experiment": f"\n```python\n{ours}```\n\n",
        "report": f"\n```console\n{command}\n{printed.getvalue()}```\n\n",
    }


def test_the_page_shows_a_real_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: bool) -> None:
    monkeypatch.chdir(tmp_path)
    page = with_parts(PAGE.read_text("utf-8"), parts(tmp_path))
    if update:
        PAGE.write_text(page, "utf-8")
    assert PAGE.read_text("utf-8") == page
