"""`mm` in this process."""

from __future__ import annotations

import pytest

from mm_config.cli.app import app

HIGH, LOW, TINY = "experiments.tiny_high", "experiments.tiny_low", "experiments.tiny"


def mm(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> str:
    """What a command prints; its mistakes where it has exit status 2."""
    assert app(argv) == status
    printed = capsys.readouterr()
    assert (printed.out if status == 2 else printed.err) == ""
    return printed.err if status == 2 else printed.out
