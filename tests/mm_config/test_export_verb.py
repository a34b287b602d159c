"""`mm export` writes a spec by a format that a package registers."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_config.cli.app import app
from tests.mm_config.test_doctor import install

EXPERIMENT = "experiments/wan22_t2v.py"
FORMAT = """
from mm_config.schema.errors import Problem, UserError

def size(spec):
    if not spec.negative_prompt:
        raise UserError(Problem("spec.negative_prompt", "is needed there"))
    return f"{spec.width}x{spec.height}\\n"
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages with one that registers the format `size`."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "scratch_format.py").write_text(FORMAT)
    install(folder, "scratch-format", "1.0", entries="[mm.exporters]\nsize = scratch_format:size\n")
    monkeypatch.syspath_prepend(folder)
    return folder


def test_a_spec_in_a_registered_format(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "size", EXPERIMENT, "--spec.width", "640", "--spec.height", "384"]
    assert app(words) == 0
    assert capsys.readouterr().out == "640x384\n"
    out = site.parent / "size.txt"
    assert app([*words, "--out", str(out)]) == 0
    assert (capsys.readouterr().out, out.read_text("utf-8")) == ("", "640x384\n")
    assert app([*words, "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"{out}: exists and is not overwritten; name another file\n"
    assert app([*words, "--spec.negative-prompt", ""]) == 2
    assert capsys.readouterr().err == "spec.negative_prompt: is needed there\n"


def test_what_is_no_format(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (([], "got none"), (["sizes", EXPERIMENT], "got 'sizes'; did you mean size?")):
        assert app(["export", *words]) == 2
        assert told in capsys.readouterr().err
    assert app(["export", "size"]) == 2
    assert "expected FORMAT TARGET [FOLDER], got size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("nowhere_at_all:size", "No module named 'nowhere_at_all'; install what it needs"),
        ("scratch_format:gone", "module 'scratch_format' has no attribute 'gone'; install its package anew"),
        ("scratch_format:__name__", "scratch_format:__name__ is no function"),
    ],
)
def test_a_format_that_can_not_be_loaded_is_one_line(
    site: Path, capsys: pytest.CaptureFixture[str], value: str, told: str
) -> None:
    install(site, "broken-format", "1.0", entries=f"[mm.exporters]\nbroken = {value}\n")
    assert app(["export", "broken", EXPERIMENT]) == 2
    assert capsys.readouterr().err == f"the format broken can't be loaded: {told}\n"


def test_a_file_is_whole_or_not_there(
    site: Path, capsys: pytest.CaptureFixture[str], full_disk: None
) -> None:
    out = site.parent / "size.txt"
    assert app(["export", "size", EXPERIMENT, "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"{out}: can't be written: No space left on device\n"
    assert list(site.parent.iterdir()) == [site]


def test_what_is_no_format_or_the_other_kind_of_one_is_said(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, told in (
        (["nothing", EXPERIMENT], "expected a format (diffusers, size), got 'nothing'"),
        (["size", EXPERIMENT, "out"], f"size is a text: mm export size {EXPERIMENT} --out out"),
        (["diffusers", EXPERIMENT], f"diffusers is a folder: mm export diffusers {EXPERIMENT} FOLDER"),
    ):
        assert app(["export", *words]) == 2
        assert capsys.readouterr().err == f"{told}\n"
