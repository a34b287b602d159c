"""The commands of docs/generation.md are understood: options by the verb, fields by the experiment."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from mm_config.cli.main import main
from mm_infer.verb import USAGE

PAGE = Path(__file__).parents[2] / "docs/generation.md"
TEXT = PAGE.read_text("utf-8").replace("\\\n", " ")
COMMANDS = re.findall(r"^    ((?:mm generate|torchrun) [^\n]*)", TEXT, re.MULTILINE)
WITH_FIELDS = [command for command in COMMANDS if "--spec." in command]


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 7 and len(WITH_FIELDS) > 3


@pytest.mark.parametrize("command", COMMANDS)
def test_its_options_are_those_of_the_verb(command: str) -> None:
    known = {option.flag for option in USAGE.options} | {"--nproc-per-node"}
    assert {word for word in shlex.split(command) if word.startswith("--") and "spec." not in word} <= known


@pytest.mark.parametrize("command", WITH_FIELDS)
def test_its_fields_are_understood_and_carried_out(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    (file,) = (word for word in words if word.startswith("experiments/"))
    fields = words[next(at for at, word in enumerate(words) if word.startswith("--spec.")) :]
    if "--nproc-per-node" in words:
        monkeypatch.setenv("WORLD_SIZE", words[words.index("--nproc-per-node") + 1])
        monkeypatch.setenv("RANK", "0")
    spec = importlib.import_module(file.removesuffix(".py").replace("/", ".")).SPEC
    main(spec, [file, *fields, "--dry-run"])
    assert "parameters" in capsys.readouterr().out
