"""Text from files reaches a terminal as text: what moves the cursor, ends a line or turns it is escaped."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from experiments.tiny_high import SPEC
from mm_config import replace
from mm_config.cli.app import app
from mm_config.console import output
from mm_config.options.run_options import RunOptions
from mm_config.rules.whole import problems
from mm_config.runs.folder import open_run
from mm_config.runs.index import open_index
from mm_config.schema.errors import Problem, escaped
from tests.mm_config.mm_in_process import mm

TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
MARKS = "\u061c\u200e\u200f"
"""The marks of a direction, which Unicode classes as letters of it."""
HOSTILE = "a\x1b]0;pwn\x07b\x9b2Jc\x7fd\u202ee\u2066f\r\nFAKE  finished\x00\tg\u2028h\u200fi"
SHOWN = r"a\x1b]0;pwn\x07b\x9b2Jc\x7fd\u202ee\u2066f\r\nFAKE  finished\x00\tg\u2028h\u200fi"


def is_hostile(character: str) -> bool:
    kinds = ("Cc", "Zl", "Zp", "Cs")
    turns = unicodedata.bidirectional(character) in TURNING
    return unicodedata.category(character) in kinds or turns or character in MARKS


def reached_safely(printed: str, colours: bool = False) -> None:
    lines = printed.replace("\x1b[", "") if colours else printed
    assert not {one for one in lines if is_hostile(one) and one != "\n"}
    assert not [line for line in printed.splitlines() if line.startswith("FAKE")]


def test_every_character_of_unicode_that_is_no_text_is_escaped_and_none_of_writing() -> None:
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        if is_hostile(character):
            assert escaped(character).isascii() and escaped(character).isprintable(), hex(number)
        elif character.isprintable() or character in "\u200c\u200d\u00ad\u3000\u00a0":
            assert escaped(character) == character, hex(number)
    assert escaped(HOSTILE) == SHOWN and escaped(SHOWN) == SHOWN
    assert str(Problem("spec.name", HOSTILE)) == f"spec.name: {SHOWN}"


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "a\rb", "a\x7f", "a\x9b", "a\u202eb", "a\u2066", "a\0"])
def test_a_label_with_control_characters_is_refused(name: str) -> None:
    (problem,) = problems(replace(SPEC, "name", name))
    assert problem.path == "spec.name" and "no control characters" in problem.message


@pytest.mark.parametrize(
    "name", ["\u706b\u7403 \u4e00", "caf\u00e9 1", "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"]
)
def test_a_label_in_any_writing_is_taken(name: str) -> None:
    assert not problems(replace(SPEC, "name", name))


def hostile_runs(runs_dir: Path) -> Iterable[str]:
    """Two runs that say something hostile wherever a file of theirs may hold text; their ids."""
    for number in (1, 2):
        run = open_run(replace(SPEC, "name", "tiny"), RunOptions(runs_dir))
        run.finish({"steps": 8, "note": HOSTILE * number, HOSTILE: HOSTILE, "score": {HOSTILE: HOSTILE}})
        for name in ("status.json", "provenance.json"):
            content: dict[str, Any] = json.loads((run.path / name).read_text())
            known = {"host": HOSTILE, "name": HOSTILE, "kind": HOSTILE, "reason": HOSTILE * number}
            content |= known if name == "status.json" else {"platform": HOSTILE, "python": HOSTILE * number}
            if name == "provenance.json":
                content["packages"] = {HOSTILE: HOSTILE * number}
            (run.path / name).write_text(json.dumps(content).replace("\\u0000", ""))
        (run.path / "a\x1b]0;pwn\x07").touch()
        yield run.record.path


def test_what_runs_say_is_printed_escaped_and_in_json_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = hostile_runs(tmp_path)
    open_index(tmp_path).reindex()
    at = ("--runs-dir", str(tmp_path))
    for words in ([], ["find", first], ["show", first], ["compare", first, second]):
        reached_safely(mm(capfd, "runs", *words, *at))
        reached_safely(text := mm(capfd, "runs", *words, "--json", *at))
        json.loads(text)
    shown = json.loads(mm(capfd, "runs", "show", first, "--json", *at))
    assert shown["result"]["note"] == HOSTILE and shown["host"] == HOSTILE.replace("\0", "")
    (tmp_path / first / "status.json").write_text(json.dumps({"uid": HOSTILE}))
    app(["runs", "reindex", *at])
    reached_safely(capfd.readouterr().err)


@pytest.mark.parametrize("form", ["json", "yaml", "python", "flat", None])
def test_a_prompt_in_a_spec_is_printed_escaped_and_reads_back(
    form: str | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from experiments.tiny import SPEC as GENERATION
    from mm_config.stored.files import dump, load

    prompt = HOSTILE.replace("\0", "")
    spec = replace(GENERATION, "samples.prompts", (prompt,))
    dump(spec, tmp_path / "spec.json")
    text = mm(capfd, "show", str(tmp_path / "spec.json"), *(["--format", form] if form else []))
    reached_safely(text)
    if form in ("json", "yaml"):
        (tmp_path / f"again.{form}").write_text(text)
        assert load(tmp_path / f"again.{form}") == spec


def test_notes_tables_and_bars_on_a_terminal_are_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for live in (False, True):
        monkeypatch.setattr(output, "is_live", lambda live=live: live)
        output.console.cache_clear()
        output.say(HOSTILE)
        output.table(HOSTILE, [(HOSTILE, 1)], (HOSTILE, "n"))
        with output.progress(HOSTILE, 1, every=1) as bar:
            bar.advance(rate=HOSTILE)
        output.aside(HOSTILE)
        printed = capsys.readouterr()
        reached_safely(printed.out, colours=live)
        reached_safely(printed.err)
        assert printed.err == f"{SHOWN}\n"
    output.console.cache_clear()
