"""The code of docs/training.md makes specs that nothing is wrong with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from experiments import tiny_high, tiny_low
from mm_config import replace, rules
from mm_config.cli.main import main

PAGE = Path(__file__).parents[2] / "docs/training.md"
BLOCKS = [
    code
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    if re.search("^[A-Z]+ = ", code, re.MULTILINE)
]


@pytest.mark.parametrize("code", BLOCKS, ids=[code.split(" = ")[0].split()[-1] for code in BLOCKS])
def test_what_the_page_writes_is_a_valid_training(code: str) -> None:
    names: dict[str, Any] = {
        "__name__": "page",
        "SPEC": tiny_high.SPEC,
        "replace": replace,
        "tiny_low": tiny_low,
    }
    exec(f"from mm_config.specs import *\n{code}", names)
    fields = {name.lower(): names[name] for name in ("VALIDATION", "SAMPLES") if name in names}
    spec = replace(names["SPEC"], fields)
    assert spec != tiny_high.SPEC
    assert rules.problems(spec) == []


COMMANDS = re.findall(
    r"^python (experiments/tiny_high\.py (?!.*RUN)--spec[^#\n]*)", PAGE.read_text("utf-8"), re.MULTILINE
)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_s_flags_are_understood(command: str, tmp_path: Path) -> None:
    main(tiny_high.SPEC, [*command.split(), "--dry-run", "--runs-dir", str(tmp_path)])
