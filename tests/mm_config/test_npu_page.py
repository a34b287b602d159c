"""The page about NPUs says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from mm_config.npu.variables import RECORDED, VARIABLES
from mm_config.npu.versions import PAIRINGS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "npu.md"
SENTENCE = "Schema- and wiring-verified, not run on Ascend."


def test_the_page_names_every_variable() -> None:
    page = PAGE.read_text("utf-8")
    assert all(f"`{variable.name}`" in page for variable in VARIABLES)


def test_variables_that_the_page_names_are_known() -> None:
    named = set(re.findall(r"`((?:HCCL|ASCEND|TORCH|PYTORCH|INF)_[A-Z_]+)", PAGE.read_text("utf-8")))
    assert named - set(RECORDED) == set()


def test_versions_that_the_page_pairs_are_in_the_table() -> None:
    rows = re.findall(r"^\| [\d.]+ \| ([\w.]+) \| (\d[\w.]*) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) == 3
    assert set(rows) <= {(pairing.torch_npu, pairing.cann) for pairing in PAIRINGS}


def test_the_python_of_the_page_is_a_valid_experiment() -> None:
    from mm_config import problems
    from mm_config.npu.exporting import variables_of

    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(code, str(PAGE), "exec"), names)
    spec = names["SPEC"]
    assert problems(spec) == []
    assert variables_of(spec)["TASK_QUEUE_ENABLE"] == "2"  # type: ignore[arg-type]


def test_the_readme_and_the_page_say_plainly_what_is_verified() -> None:
    for page in (PAGE, ROOT / "README.md"):
        assert SENTENCE in " ".join(page.read_text("utf-8").replace("*", "").split())
