"""The commands of docs/many_devices.md that start trainings are understood, and run."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from experiments import tiny_high
from mm_config.cli.main import main
from tests.mm_config.test_docs import project as project

PAGE = Path(__file__).parents[2] / "docs/many_devices.md"
COMMANDS = re.findall(r"^    (torchrun [^#\n]*)", PAGE.read_text("utf-8"), re.MULTILINE)
RANKS = re.compile(r"torchrun .*--nproc-per-node (\d+) (experiments/tiny_high\.py .*)")


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 3


@pytest.mark.parametrize("command", COMMANDS)
def test_its_flags_are_understood(
    command: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = RANKS.fullmatch(command)
    assert found is not None
    monkeypatch.setenv("WORLD_SIZE", found[1])
    monkeypatch.setenv("RANK", "0")
    main(tiny_high.SPEC, [*shlex.split(found[2]), "--dry-run"])
    assert f"on {found[1]} ranks" in capsys.readouterr().out


@pytest.mark.slow
def test_it_can_be_done_one_after_the_other(project: Path) -> None:
    """As a reader does, in one folder, of a smaller network and few steps."""
    small = "--spec.model.num-layers 1 --spec.steps 3 --spec.warmup-steps 1 --spec.batch-size 8"
    for command in COMMANDS:
        own = re.sub(r" --spec\.(steps|warmup-steps|batch-size|model\.num-layers) \S+", "", command)
        done = subprocess.run(
            ["bash", "-c", f"{own} {small}"],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr[-2_000:]}"
        assert done.stdout.splitlines()[-1].endswith("result.json")
