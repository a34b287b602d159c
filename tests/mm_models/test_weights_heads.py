"""The number of attention heads, which no tensor shows: who tells it, and what happens where nobody does."""

import json
from pathlib import Path

import attrs
import pytest

from mm_config.cli.app import app
from mm_config.families import wan21, wan22
from mm_config.families.tiny import TINY
from mm_config.specs.kinds import Conditioning
from mm_config.specs.wan import WanTransformerSpec
from mm_models.wan.architecture import guess
from tests.mm_models.weight_files import T2V, write_diffusers, write_wan


@pytest.fixture
def untold(tmp_path: Path) -> Path:
    """A file of the original names without a configuration, of a network of no published width."""
    write_wan(tmp_path / "w.safetensors", attrs.evolve(T2V, num_layers=1))
    return tmp_path / "w.safetensors"


def heads_of(folder: Path) -> tuple[int, int]:
    config = json.loads((folder / "config.json").read_text())
    return config["num_attention_heads"], config["attention_head_dim"]


@pytest.mark.parametrize("kind", ["diffusers", "wan", "dcp"])
def test_they_are_asked_for_where_nothing_tells_them(
    kind: str, untold: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app(["convert", str(untold), str(tmp_path / "out"), "--to", kind]) == 2
    assert capsys.readouterr().err == (
        f"{untold}: its shapes don't tell the number of attention heads; give it by --heads, or a spec that "
        "has it by --spec (published networks: hidden size / 128)\n"
    )
    assert not (tmp_path / "out").exists()


def test_they_are_not_asked_for_by_files_that_do_not_say_them(untold: Path, tmp_path: Path) -> None:
    assert app(["convert", str(untold), str(tmp_path / "out"), "--to", "mindspeed"]) == 0


def test_heads_are_given(untold: Path, tmp_path: Path) -> None:
    assert app(["convert", str(untold), str(tmp_path / "out"), "--heads", "3"]) == 0
    assert heads_of(tmp_path / "out") == (3, T2V.hidden_size // 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--heads", "0"], "--heads: expected a number of attention heads, such as 12, got '0'"),
        (["--heads", "5"], "--heads.num_attention_heads: "),
        (
            ["--heads", "3", "--spec", "experiments.tiny_high"],
            "--heads: experiments.tiny_high of --spec tells",
        ),
    ],
)
def test_heads_that_cannot_be(
    words: list[str], message: str, untold: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app(["convert", str(untold), str(tmp_path / "out"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_heads_that_a_configuration_denies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_diffusers(tmp_path / "d", T2V)
    other = "1" if T2V.num_attention_heads != 1 else "2"
    assert app(["convert", str(tmp_path / "d"), str(tmp_path / "out"), "--heads", other]) == 2
    told = f"num_attention_heads is {T2V.num_attention_heads} in the configuration of the weights, {other} in"
    assert told in capsys.readouterr().err


def test_the_shapes_of_a_family_tell_them_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(TINY.model, WanTransformerSpec)
    write_wan(tmp_path / "tiny.safetensors", TINY.model)
    assert app(["convert", str(tmp_path / "tiny.safetensors"), str(tmp_path / "out")]) == 0
    assert heads_of(tmp_path / "out") == (4, 64)
    assert "heads     4: tiny.TINY has these shapes\n" in capsys.readouterr().out


def test_networks_of_the_published_widths_have_the_published_heads() -> None:
    # 12, 40 and 24 heads, by the `config.json` of the releases.
    for family, heads in ((wan21.T2V_1_3B, 12), (wan21.T2V_14B, 40), (wan22.TI2V_5B, 24)):
        assert isinstance(family.model, WanTransformerSpec)
        # A network that starts from a given frame, of this size, is published by others.
        model = attrs.evolve(family.model, in_channels=100, conditioning=Conditioning.FIRST_FRAME)
        found = guess(model.parameter_shapes(), {})
        assert found is not None
        assert (found.heads, found.spec.num_attention_heads) == ("size", heads)
        assert f"hidden size {model.hidden_size} and ffn_dim {model.ffn_dim} too" in found.heads_of
    other = attrs.evolve(model, ffn_dim=2 * model.hidden_size)
    found = guess(other.parameter_shapes(), {})
    assert found is not None and found.heads == "unknown"
