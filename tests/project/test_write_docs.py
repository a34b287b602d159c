"""The tables in docs/ are those of the code; `pytest --update` writes them anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.write_docs import MINDSPEED_KEYS, NPU, TELEFUSER, pages, with_parts


@pytest.mark.parametrize("page", [MINDSPEED_KEYS, NPU, TELEFUSER], ids=lambda page: page.name)
def test_a_page_has_the_tables_of_the_code(page: Path, update: bool) -> None:
    text = pages()[page]
    if update:
        page.write_text(text, "utf-8")
    assert page.read_text("utf-8") == text


def test_a_part_is_replaced_and_the_rest_stays() -> None:
    page = "# Title\n<!-- one -->\nold\n<!-- end of one -->\ntext\n"
    made = "# Title\n<!-- one -->\n\nnew\n\n<!-- end of one -->\ntext\n"
    assert with_parts(page, {"one": "\nnew\n"}) == made == with_parts(made, {"one": "new"})
    with pytest.raises(ValueError, match="the page has no part two"):
        with_parts(page, {"two": "new"})
