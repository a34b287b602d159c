"""--help lists every field with what a user needs to set it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import tiny, tiny_high
from mm_config import replace
from mm_config.cli.main import main
from mm_config.cli.values import brief
from mm_config.schema.evolve import leaves
from mm_config.schema.root import RootSpec, aliases_of

ROOT = Path(__file__).parents[2]


def help_page(spec: RootSpec, capsys: pytest.CaptureFixture[str]) -> str:
    main(spec, ["experiments/some.py", "--help"])
    return capsys.readouterr().out


def flattened(page: str) -> str:
    return " ".join(page.split())


@pytest.mark.parametrize("spec", [tiny_high.SPEC, tiny.SPEC], ids=lambda spec: type(spec).__name__)
def test_every_field_is_listed_with_its_description_default_and_unit(
    spec: RootSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    page = help_page(spec, capsys)
    entries = [flattened(entry) for entry in re.split(r"\n(?=  --|\S|\n)", page)]
    for leaf in leaves(replace(spec, "name", "some"), by_hash=False):
        (entry,) = (entry for entry in entries if re.match(rf"--spec\.{re.escape(leaf.path)}(,| |$)", entry))
        assert leaf.help in entry
        assert f"(default: {flattened(brief(leaf.value))}" in entry
        if leaf.info.unit:
            assert leaf.info.unit in entry.partition("(default: ")[2]
    for alias in aliases_of(type(spec)):
        assert f", --spec.{alias}" in flattened(page)


@pytest.mark.parametrize("spec", [tiny_high.SPEC, tiny.SPEC], ids=lambda spec: type(spec).__name__)
def test_the_commands_of_the_examples_can_be_typed(
    spec: RootSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^  python experiments/some\.py(.*)$", help_page(spec, capsys), re.MULTILINE)
    assert len(commands) >= 4
    for command in (command for command in commands if "--resume" not in command):
        words = [word for word in shlex.split(command) if word != "--dry-run"]
        main(spec, ["experiments/some.py", *words, "--dry-run"])
        assert "plan for 1 rank" in capsys.readouterr().out


def test_a_field_shows_type_alias_default_unit_and_range(capsys: pytest.CaptureFixture[str]) -> None:
    page = flattened(help_page(tiny_high.SPEC, capsys))
    lr = tiny_high.SPEC.optim.lr
    assert f"--spec.optim.lr, --spec.lr FLOAT Peak learning rate. (default: {lr}; > 0)" in page
    assert (
        "--spec.data.cache {none,latents} What is kept after the first pass over the data. (default: latents)"
        in page
    )
    assert "(default: 17 frames; >= 1; <= 100000)" in page
    assert "--spec.fsdp.reshard_after_forward, --spec.fsdp.no_reshard_after_forward" in page
    assert "(default: None; unit: clips; >= 1; <= 1000000)" in page
    assert "(default: some)" in page, "the label's default is the file's stem"
    assert "torchrun --nproc-per-node 8 --max-restarts 3 experiments/some.py --resume auto" in page
    for option in (
        "--resume RUN|latest",
        "--if-needed",
        "--runs-dir DIR",
        "--dry-run",
        "--location NAME=PATH",
    ):
        assert option in page


def test_a_spec_that_enters_by_its_hash_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    page = help_page(tiny.SPEC, capsys)
    assert "--spec.high_noise.spec.*" in page
    assert "--spec.high_noise.spec.optim.lr" not in page


@pytest.mark.parametrize("spec", [tiny_high.SPEC, tiny.SPEC], ids=lambda spec: type(spec).__name__)
def test_the_page_fits_80_columns_and_has_no_colours_in_a_pipe(
    spec: RootSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    page = help_page(spec, capsys)
    assert "\x1b" not in page
    assert not [line for line in page.splitlines() if len(line) > 80]
    assert not [line for line in page.splitlines() if line != line.rstrip()]


def test_help_and_ids_need_no_tensor_library() -> None:
    code = (
        "import sys, experiments.tiny, experiments.tiny_low\n"
        "from mm_config.cli.app import app\n"
        "from mm_config.cli.main import main\n"
        "main(experiments.tiny.SPEC, ['tiny.py', '--help'])\n"
        "main(experiments.tiny.SPEC, ['tiny.py', '--dry-run'])\n"
        "app(['hash', 'experiments.tiny_low', '--spec.lr', '1'])\n"
        "app(['diff', 'experiments.tiny', 'experiments.tiny_low'])\n"
        "app(['--help'])\n"
        "heavy = {'torch', 'numpy', 'transformers', 'diffusers', 'av'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
