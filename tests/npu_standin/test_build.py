"""What the stand-in is made of, and what it says where it can't be made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.npu_standin import build

RUN = Path(__file__).with_name("run.py")


def test_the_stub_has_every_function_that_the_wheel_asks_for() -> None:
    library = build.stub_folder() / f"lib{build.LIBRARY}.so"
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    )
    defined = {line.split()[-1] for line in listed.stdout.splitlines()}
    wanted = build.wanted_symbols()
    assert len(wanted) > 50
    assert wanted | set(build.BY_NAME) <= defined


def test_the_project_is_installed_without_torch_npu() -> None:
    """The wheel lies beside the environment: in it, torch could not be imported without CANN."""
    import torch_npu  # type: ignore[import-not-found]

    assert Path(str(torch_npu.__file__)).is_relative_to(build.wheel_folder())


def test_without_a_compiler_the_tests_are_skipped_and_say_so() -> None:
    environment = {**build.plain(os.environ), "PATH": "", "CC": ""}
    command = [sys.executable, str(RUN), "-rs", str(RUN.with_name("test_planted.py"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "no NPU stand-in: there is no C compiler with binutils here" in done.stdout
    assert "passed" not in done.stdout and "skipped" in done.stdout


def test_without_a_wheel_it_is_said_what_can_not_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "BUILD", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        build.Unavailable, match=r"torch_npu==\S+ can't be installed: .*No matching distribution"
    ):
        build.build()
    assert not build.wheel_folder().exists()
