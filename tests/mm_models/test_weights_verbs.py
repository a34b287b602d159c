"""`mm convert` and `mm inspect` on the command line."""

import json
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import save_file

from experiments import custom_dit
from experiments.tiny_high import SPEC
from mm_config.cli.app import app
from mm_config.families.tiny import TINY
from mm_config.specs.wan import WanTransformerSpec
from mm_config.stored import files
from mm_models import checkpoint
from mm_models.weights.inspecting import inspect_weights
from tests.mm_models.weight_files import values, write_wan

MODEL = TINY.model
assert isinstance(MODEL, WanTransformerSpec)
PARAMETERS = MODEL.parameter_count()


@pytest.fixture
def wan(tmp_path: Path) -> Path:
    """A folder of the original code's, with the tiny family's network."""
    assert isinstance(MODEL, WanTransformerSpec)
    write_wan(tmp_path / "wan" / "w.safetensors", MODEL)
    return tmp_path / "wan"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A saved spec of another network."""
    spec = attrs.evolve(SPEC, model=attrs.evolve(MODEL, num_layers=4, ffn_dim=520))
    (tmp_path / "other.json").write_text(files.dumps(spec, "json"))
    return tmp_path / "other.json"


def test_a_folder_is_converted_and_inspected(
    wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert app(["convert", str(wan), str(out), "--to", "mindspeed", "--dtype", "bfloat16"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"written   {out} (mindspeed, from wan)"
    assert app(["inspect", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "mindspeed"
    assert found["families"] == ["tiny.TINY", "tiny.TINY_TI2V"]
    assert found["architecture"]["num_attention_heads"] == 4
    assert found["dtypes"] == {"bfloat16": found["tensors"]}
    assert found["parameters"] == PARAMETERS
    assert found["bytes"] == 2 * PARAMETERS
    assert found["fits"] is True


def test_the_page_says_what_weights_are(wan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["inspect", str(wan)]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines() if line[0] != " ")
    told = {name: value.strip() for name, value in lines.items()}
    assert told["kind"] == "wan: safetensors, names of the original code's WanModel"
    assert told["architecture"] == "tiny.TINY or tiny.TINY_TI2V"
    assert told["heads"] == "those of the family (tiny.TINY has these shapes)"
    assert told["parameters"] == f"{PARAMETERS:,}"
    assert told["digest"] == inspect_weights(wan).digest
    assert told["fits"] == "its own architecture"


def test_one_changed_value_changes_the_digest(wan: Path, tmp_path: Path) -> None:
    assert isinstance(MODEL, WanTransformerSpec)
    tensors = values(MODEL)
    save_file(tensors, tmp_path / "same.safetensors")
    tensors["proj_out.bias"][3] += 1
    save_file(tensors, tmp_path / "changed.safetensors")
    assert inspect_weights(tmp_path / "same.safetensors").digest == inspect_weights(wan).digest
    assert inspect_weights(tmp_path / "changed.safetensors").digest != inspect_weights(wan).digest


def test_weights_of_another_spec_end_with_status_1(
    wan: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app(["inspect", str(wan), "--spec", str(other)]) == 1
    page = capsys.readouterr().out
    assert f"does not fit  {other}" in page
    assert "tensors are missing:\n    blocks.3.scale_shift_table\n" in page
    shown = page.partition("does not fit")[2].splitlines()[1:]
    assert all(len(line) <= 110 for line in shown if "likely cause" not in line)
    assert (
        "likely cause: these are weights of tiny.TINY (or tiny.TINY_TI2V), the spec is of no known family"
        in page
    )
    assert app(["inspect", str(wan), "--spec", str(other), "--json"]) == 1
    differences = json.loads(capsys.readouterr().out)["differences"]
    assert len(differences["missing"]) == sum(
        name.startswith("blocks.0.") for name in MODEL.parameter_shapes()
    )
    assert app(["convert", str(wan), str(wan.parent / "out"), "--spec", str(other)]) == 2
    assert "tensors are missing: " in capsys.readouterr().err
    assert not (wan.parent / "out").exists()


def test_a_trainings_checkpoint_has_the_spec_of_its_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(MODEL, WanTransformerSpec)
    heads = attrs.evolve(MODEL, num_attention_heads=8)
    folder = tmp_path / "step-00000001"
    optimizer = {"proj_out.bias.exp_avg": torch.zeros(2)}
    state = {"step": 1, "spec": files.to_payload(attrs.evolve(SPEC, model=heads))}
    checkpoint.save(folder, {"model": values(heads), "optimizer": optimizer}, state)
    assert app(["convert", str(folder), str(tmp_path / "out"), "--shard-gb", "0.001"]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["num_attention_heads"], config["attention_head_dim"]) == (8, 32)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 5
    capsys.readouterr()
    assert app(["inspect", str(folder)]) == 0
    assert "num_attention_heads 8, " in capsys.readouterr().out
    assert app(["inspect", str(folder), "--spec", "experiments.tiny_high"]) == 1
    page = capsys.readouterr().out
    assert "  num_attention_heads is 8 in the configuration of the weights, 4 in the spec\n" in page


def test_a_checkpoint_of_another_network_is_said_to_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "step-00000001"
    spec = attrs.evolve(custom_dit.SPEC.model, num_layers=1, num_attention_heads=1, ffn_dim=8)
    tensors = {name: torch.zeros(shape) for name, shape in spec.parameter_shapes().items()}
    state = {"step": 1, "spec": files.to_payload(attrs.evolve(custom_dit.SPEC, model=spec))}
    checkpoint.save(folder, {"model": tensors}, state)
    told = "these are weights of Wan's transformer; this is of CustomDiTSpec"
    for words in (["inspect", str(folder)], ["convert", str(folder), str(tmp_path / "out")]):
        assert app(words) == 2
        assert capsys.readouterr().err == f"{folder}: {told}\n"
    assert app(["inspect", str(folder), "--spec", "experiments.custom_dit"]) == 2
    assert capsys.readouterr().err == f"experiments.custom_dit: {told}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convert", "a"], "expected SRC DST, got a"),
        (["convert", "a", "b", "--too", "wan"], "--too: unknown flag; did you mean --to?"),
        (
            ["convert", "a", "b", "--to", "wann"],
            "--to: expected one of diffusers, wan, mindspeed, dcp, peft, got 'wann'",
        ),
        (["convert", "a", "b", "--dtype", "float8"], "--dtype: expected one of float32, bfloat16, float16"),
        (
            ["convert", "a", "b", "--shard-gb", "0"],
            "--shard-gb: expected a number of GB above 0, such as 5, got '0'",
        ),
        (["convert", "a", "b", "--shard-gb", "nan"], "--shard-gb: expected a number of GB above 0"),
        (["inspect"], "expected PATH, got none"),
        (["inspect", "nowhere-at-all"], "nowhere-at-all: no such file or folder"),
        (["inspect", "a", "--spec", "nowhere"], "nowhere: no such file, module, run id or hash"),
    ],
)
def test_mistakes_are_one_line_each(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app(words) == 2
    told = capsys.readouterr().err
    assert told.startswith(message)
    assert len(told.splitlines()) == 1


def test_help_is_shown_without_torch() -> None:
    program = (
        "import sys; from mm_config.cli.app import app; status = app(['convert', '--help']) or "
        "app(['inspect', '--help']); assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: mm convert SRC DST" in done.stdout
    assert "usage: mm inspect PATH" in done.stdout
