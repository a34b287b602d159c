"""CONTRIBUTING.md: its recipes are built and run; what it shows of our files and what it names is there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from mm_config.cli.verb import verbs

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGE = PAGES[0].read_text("utf-8")


def shown(kind: str) -> dict[str, str]:
    """The blocks of Python behind a comment `<!-- kind path -->`, by the path."""
    found = re.findall(rf"^<!-- {kind} (\S+) -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return dict(found)


@pytest.fixture(scope="module")
def extra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's experiment and, as if it were installed there, the page's package."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("extra")
    tables = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (source / "pyproject.toml").write_text("\n".join(tables), "utf-8")
    (source / "mm_extra").mkdir()
    (source / "mm_extra" / "__init__.py").touch()
    for name, text in shown("file").items():
        place = source if name.startswith("mm_extra/") else folder
        (place / name).write_text(text, "utf-8")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = source.glob("dist/*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def printed(folder: Path, *words: str) -> str:
    done = python(folder, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(result: str) -> list[float]:
    lines = Path(result).with_name("metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_the_verb_answers(extra: Path) -> None:
    # 9 x 64 of the text, two layers of 9 x 9, 9 x 9 of the output.
    assert printed(extra, "-m", "mm_config", "size", "extra.py") == "819\n"
    assert printed(extra, "-m", "mm_config", "size", "extra.py", "--spec.model.num-layers", "3") == "900\n"
    assert re.search(r"^  size +Print the number of parameters\.$", printed(extra, "-m", "mm_config"), re.M)
    assert printed(extra, "-m", "mm_config", "size", "--help").startswith("usage: mm size TARGET ")
    mistaken = python(extra, "-m", "mm_config", "size", "absent.py")
    assert mistaken.returncode == 2 and "Traceback" not in mistaken.stderr


def test_the_network_and_the_optimizer_do_what_their_specs_and_the_paper_say(extra: Path) -> None:
    script = """
import torch, mm_models
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from mm_extra.cell_mlp_spec import CellMlpSpec
from mm_extra.lion_spec import LionSpec
from mm_train.optim import build_optimizer

spec = CellMlpSpec(in_channels=3, out_channels=5, text_dim=7, num_layers=2)
network = mm_models.build(spec, "cpu")
mm_models.initialize(network, seed=1)
named = {name: tuple(one.shape) for name, one in network.named_parameters()}
assert list(named.items()) == list(spec.parameter_shapes().items()), named
with FlopCounterMode(display=False) as counter:
    out = network(torch.randn(1, 3, 2, 4, 6), torch.tensor([500.0]), torch.randn(1, 11, 7))
assert out.shape == (1, 5, 2, 4, 6) and out.isfinite().all()
assert counter.get_total_flops() == spec.forward_flops((2, 4, 6), 11)

weight = nn.Linear(1, 1, bias=False)
weight.weight.data.fill_(1.0)
lion = LionSpec(lr=0.5, betas=(0.5, 0.75), weight_decay=0.25)
optimizer = build_optimizer(weight, lion, torch.device("cpu"))
for gradient in (4.0, -1.0):
    weight.weight.grad = torch.full((1, 1), gradient)
    optimizer.step()
    print(weight.weight.item(), optimizer.state[weight.weight]["momentum"].item())
"""
    # By hand: 1 (1 - 0.5 0.25) - 0.5, m = 4 / 4; then m / 2 - 1 / 2 is 0, so decay alone; m = 3 / 4 - 1 / 4.
    assert printed(extra, "-c", script).split() == ["0.375", "1.0", "0.328125", "0.5"]


def test_the_experiment_trains_stops_and_goes_on(extra: Path) -> None:
    whole = printed(extra, "extra.py").splitlines()[-1]
    assert len(set(losses(whole))) == 4
    script = """
import extra
from mm_config import RunOptions, replace
from mm_config.options.run_options import StoppedEarly
from mm_train import train
spec = replace(extra.SPEC, "name", "extra")
try:
    train(spec, RunOptions(stop_after=2))
except StoppedEarly as stopped:
    print(train(spec, RunOptions(resume=str(stopped.run_dir))).result_path)
"""
    resumed = printed(extra, "-c", script).splitlines()[-1]
    assert resumed != whole and losses(resumed) == losses(whole)


def test_without_the_package_the_experiment_s_file_is_one_line_to_read(extra: Path, tmp_path: Path) -> None:
    spec = printed(extra, "-m", "mm_config", "show", "extra.py", "--format", "json")
    (tmp_path / "spec.json").write_text(spec)
    done = python(tmp_path, "-m", "mm_config", "hash", "spec.json")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "lion" in done.stderr and "cell-mlp" in done.stderr


@pytest.mark.parametrize("path", shown("from"))
def test_what_is_shown_of_our_files_stands_there(path: str) -> None:
    # ruff formats the page's blocks, too, and a field fits another line there than inside its class.
    page, file = ("".join(text.split()) for text in (shown("from")[path], (ROOT / path).read_text("utf-8")))
    assert page in file


def test_every_command_and_file_that_the_pages_name_is_there() -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`|^    make ([a-z-]+)$", text, re.MULTILINE)) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }
    named = set(re.findall(r"(?:`|    )mm ([a-z]+)", text)) - {"size"}
    assert named and named <= set(verbs())
    files = set(re.findall(r"(?:python|pytest) ((?:scripts|tests)/\S+?\.py)|\]\(([^)]+)\)", text))
    names = {first or second for first, second in files}
    assert len(names) > 5 and not [name for name in names if not (ROOT / name).exists()]
    loose = set(re.findall(r"`((?:mm_\w+|rules|specs|tests)/[\w/]+(?:\.py|/))`", text))
    roots = [ROOT, ROOT / "packages/mm_config/src/mm_config", *ROOT.glob("packages/*/src")]
    missing = [name for name in loose if not any((root / name).exists() for root in roots)]
    assert len(loose) > 8 and [name for name in missing if "mm_extra" not in name] == []


def test_the_storeys_are_those_that_import_linter_holds() -> None:
    rows = re.findall(r"^\| (?:what people|a value on|the value)[^|]*\| `([a-z ]+)` \|", PAGE, re.MULTILINE)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (storeys,) = (one["layers"] for one in contracts if one.get("containers") == ["mm_config"])
    assert [set(row.split()) for row in rows] == [set(layer.split(" : ")) for layer in storeys]
