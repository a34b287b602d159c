"""`mm inspect` and `mm convert` of adapters."""

import json
from pathlib import Path

import attrs
import pytest

from experiments.tiny_high import SPEC
from mm_config.cli.app import app
from mm_config.families.tiny import TINY
from mm_config.specs.diffusion import Expert
from mm_config.specs.wan import WanTransformerSpec
from mm_config.stored import files
from mm_models.lora.adapter import HIGH_NOISE, LOW_NOISE, Adapter
from mm_models.lora.files import read_adapters
from mm_models.lora.writing import save_adapters
from tests.mm_models.lora_files import adapter_of, alphas, assert_equal, halves, write
from tests.mm_models.weight_files import write_wan

MODEL = TINY.model
assert isinstance(MODEL, WanTransformerSpec)
NAMES = tuple(f"blocks.{block}.attn1.{layer}" for block in range(2) for layer in ("to_q", "to_v"))


def of_tiny(alpha: float = 2.0) -> Adapter:
    assert isinstance(MODEL, WanTransformerSpec)
    return adapter_of(NAMES, alpha=alpha, spec=MODEL)


@pytest.fixture
def kohya(tmp_path: Path) -> Path:
    """An adapter of the tiny family's network in flat keys."""
    tensors = halves(of_tiny(), "lora_unet_", "lora_down", "lora_up", wan=True)
    return write(tmp_path / "kohya" / "lora.safetensors", tensors | alphas(of_tiny(), "lora_unet_"))


def lines_of(told: str) -> dict[str, str]:
    return {name: value.strip() for name, value in (line.split("  ", 1) for line in told.splitlines())}


def test_the_page_says_what_an_adapter_is(kohya: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["inspect", str(kohya)]) == 0
    told = lines_of(capsys.readouterr().out)
    assert told["kind"] == "adapter (kohya): flat keys of kohya's tools"
    assert told["expert"] == "any: its keys tell none apart"
    assert (told["rank"], told["alpha"], told["scale"]) == ("4", "2", "0.5")
    assert told["layers"] == "4: blocks.*.attn1.to_q, blocks.*.attn1.to_v"
    assert isinstance(MODEL, WanTransformerSpec)
    assert told["parameters"] == f"{4 * 4 * 2 * MODEL.hidden_size:,}"
    assert told["dtypes"] == "float32"
    assert told["fits"] == "tiny.TINY or tiny.TINY_I2V or tiny.TINY_TI2V"


def test_an_adapter_is_converted_and_keeps_its_digest(
    kohya: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peft, diffusers = tmp_path / "peft", tmp_path / "diffusers"
    assert app(["convert", str(kohya), str(peft), "--to", "peft"]) == 0
    assert capsys.readouterr().out == f"written   {peft} (peft adapter, from kohya)\n"
    assert app(["convert", str(peft), str(diffusers)]) == 0
    capsys.readouterr()
    digests = set()
    for path, style in ((kohya, "kohya"), (peft, "peft"), (diffusers, "diffusers")):
        assert app(["inspect", str(path), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["kind"], found["style"], found["fits"]) == ("adapter", style, True)
        layers = found["experts"]["transformer"]["layers"]
        assert layers["blocks.1.attn1.to_v"] == {"rank": 4, "alpha": 2.0, "scale": 0.5, "beside": []}
        digests.add(found["digest"])
    assert len(digests) == 1
    assert_equal(read_adapters(diffusers).of(Expert.SINGLE), of_tiny())
    save_adapters({HIGH_NOISE: of_tiny(alpha=2.5)}, tmp_path / "other")
    assert app(["inspect", str(tmp_path / "other"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] not in digests


def test_both_experts_are_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_adapters({HIGH_NOISE: of_tiny(), LOW_NOISE: of_tiny(alpha=8.0)}, tmp_path / "both")
    assert app(["inspect", str(tmp_path / "both")]) == 0
    told = capsys.readouterr().out
    assert "expert        high noise (transformer)\nrank          4\nalpha         2\n" in told
    assert "expert        low noise (transformer_2)\nrank          4\nalpha         8\n" in told
    assert app(["convert", str(tmp_path / "both"), str(tmp_path / "peft"), "--to", "peft"]) == 0
    assert sorted(path.name for path in (tmp_path / "peft").iterdir()) == [HIGH_NOISE, LOW_NOISE]
    folders = (tmp_path / "peft" / name for name in (HIGH_NOISE, LOW_NOISE))
    written = "".join(f"written   {folder} (peft adapter, from diffusers)\n" for folder in folders)
    assert capsys.readouterr().out == written


def test_an_adapter_of_another_network_ends_with_status_1(
    tmp_path: Path, kohya: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = attrs.evolve(SPEC, model=attrs.evolve(MODEL, num_layers=1))
    (tmp_path / "other.json").write_text(files.dumps(spec, "json"))
    assert app(["inspect", str(kohya), "--spec", str(tmp_path / "other.json")]) == 1
    page = capsys.readouterr().out
    assert f"does not fit  {tmp_path / 'other.json'}" in page
    assert "  the adapter changes 2 parameters that the network lacks: blocks.1.attn1.to_q.weight, " in page
    save_adapters({HIGH_NOISE: adapter_of()}, tmp_path / "unknown")
    assert app(["inspect", str(tmp_path / "unknown")]) == 1
    assert "does not fit  any known family" in capsys.readouterr().out


def test_mistakes_are_one_line_each(tmp_path: Path, kohya: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for words, message in (
        (["--to", "dcp"], "--to: expected diffusers, peft, wan for an adapter, got 'dcp'"),
        (["--dtype", "float16"], "--dtype: is for networks; an adapter is written as it is stored"),
        (["--shard-gb", "1"], "--shard-gb: is for networks; an adapter is written as it is stored"),
    ):
        assert app(["convert", str(kohya), str(out), *words]) == 2
        assert capsys.readouterr().err == f"{message}\n"
    assert isinstance(MODEL, WanTransformerSpec)
    write_wan(tmp_path / "wan" / "w.safetensors", MODEL)
    assert app(["convert", str(tmp_path / "wan"), str(out), "--to", "peft"]) == 2
    assert capsys.readouterr().err == f"--to: peft is for adapters, and {tmp_path / 'wan'} holds none\n"
    assert not out.exists()
    kohya.write_bytes(kohya.read_bytes()[:-9])
    assert app(["inspect", str(kohya)]) == 2
    assert "it was cut short" in capsys.readouterr().err
