"""Launches that are only written down."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from mm_config.cli.app import app

STUB = """#!/bin/bash
echo "$@"
env
"""
"""An interpreter that says what it was given, and its variables."""


def launch(*words: str) -> list[Path]:
    """What `mm launch` wrote for the tiny family's training in the present folder."""
    said = StringIO()
    with redirect_stdout(said):
        assert app(["launch", "experiments.tiny_high", *words]) == 0
    print(said.getvalue(), end="")
    return [Path(path).absolute() for path in re.findall(r"^wrote (.*)$", said.getvalue(), re.MULTILINE)]
