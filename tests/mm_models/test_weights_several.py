"""Several networks in one file: two of one kind are refused, of several kinds the asked one is taken."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

import mm_models
from mm_config.families import wan21
from mm_config.schema.errors import UserError
from mm_config.specs import RandomWeights, Umt5TextEncoderSpec, WanAutoencoderSpec
from mm_models.autoencoders.wan_names import parameter_shapes
from mm_models.loading import load_tensors
from mm_models.text.umt5_names import UMT5
from mm_models.wan.names import WAN
from mm_models.weights.converting import convert
from mm_models.weights.inspecting import inspect_weights
from mm_models.weights.opening import open_weights
from tests.mm_models.parity import diffusers_of, fill
from tests.mm_models.refused_weights import refused
from tests.mm_models.test_wan22_autoencoder import SPEC as VAE_OF_22
from tests.mm_models.weight_files import T2V, values

T5 = Umt5TextEncoderSpec(
    weights=RandomWeights(), text_dim=8, num_layers=20, num_heads=2, d_kv=4, d_ff=8, vocab_size=16
)
VAE_OF_21 = attrs.evolve(wan21.T2V_14B.autoencoder, base_dim=8)
COUNT = len(diffusers_of(T2V).state_dict())
REFUSED = (
    "holds 2 whole networks (Wan's transformer): {}; nothing tells which is meant: write one into a "
    'folder of its own, such as by mm convert SRC DST --part "{}", and name that'
)
PAIRS = [
    ("high.", "low."),
    ("", "teacher."),
    ("model.", "model_ema."),
    ("student.", "momentum_teacher."),
    ("critic.", "optimal."),
]


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


def write_pair(file: Path, pair: tuple[str, str]) -> dict[str, Tensor]:
    """Our names under the first prefix; the original code's under the second, with values larger by 1."""
    second = {WAN.theirs(name): value + 1 for name, value in values(T2V).items()}
    held = under(pair[0], values(T2V)) | under(pair[1], second)
    save_file(held, file)
    return held


def shown(prefix: str, count: int = COUNT) -> str:
    return f"{f'{prefix}*' if prefix else 'names without a prefix'} ({count} tensors)"


@pytest.mark.parametrize("pair", PAIRS)
def test_two_whole_networks_in_one_file_are_refused_and_named(pair: tuple[str, str], tmp_path: Path) -> None:
    write_pair(tmp_path / "both.safetensors", pair)
    listed = ", ".join(shown(prefix) for prefix in sorted(pair))
    first = min(pair).rstrip(".")
    assert refused(tmp_path / "both.safetensors") == REFUSED.format(listed, first)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_part_is_written_into_a_folder_of_its_own(pair: tuple[str, str], tmp_path: Path) -> None:
    write_pair(tmp_path / "both.safetensors", pair)
    for more, prefix in enumerate(pair):
        part = prefix.rstrip(".")
        assert inspect_weights(tmp_path / "both.safetensors", part=part).architecture is not None
        convert(tmp_path / "both.safetensors", tmp_path / f"out{more}", part=part, spec=T2V)
        written = load_file(tmp_path / f"out{more}/diffusion_pytorch_model.safetensors")
        assert written.keys() == values(T2V).keys()
        assert all(torch.equal(written[name], value + more) for name, value in values(T2V).items())


def test_a_part_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    write_pair(tmp_path / "both.safetensors", ("high.", "low."))
    with pytest.raises(UserError, match=r"holds no network in the part 'hihg'; it holds high.\* \("):
        open_weights(tmp_path / "both.safetensors", part="hihg")


def test_every_look_says_the_same_in_whatever_order_the_file_holds_its_tensors(tmp_path: Path) -> None:
    held = write_pair(tmp_path / "both.safetensors", ("high.", "low."))
    pages = set()
    for seed in range(4):
        data = reordered(save(held), seed)
        (tmp_path / "both.safetensors").write_bytes(data)
        why = refused(tmp_path / "both.safetensors")
        low = inspect_weights(tmp_path / "both.safetensors", part="low")
        pages.add((why, low.digest, "\n".join(line for line in low.lines() if "left out" not in line)))
    assert len(pages) == 1


@pytest.mark.slow
def test_every_look_says_the_same_under_every_seed_of_hashes(tmp_path: Path) -> None:
    write_pair(tmp_path / "both.safetensors", ("high.", "low."))
    save_file(values(T2V), tmp_path / "one.safetensors")
    code = (
        "from mm_config.cli.app import app\n"
        "for words in (['both'], ['both', '--part', 'low'], ['one']):\n"
        "    print(app(['inspect', words[0] + '.safetensors', *words[1:]]))"
    )
    said = set()
    for seed in "012":
        environment = os.environ | {"PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True)
        said.add((run.stdout, run.stderr))
    ((out, error),) = said
    assert [line for line in out.decode().splitlines() if line.isdecimal()] == ["2", "0", "0"]
    assert b"whole networks" in error


def reordered(data: bytes, seed: int) -> bytes:
    """The same safetensors with another order of names in its header."""
    length = int.from_bytes(data[:8], "little")
    entries = list(json.loads(data[8 : 8 + length]).items())
    random.Random(seed).shuffle(entries)
    header = json.dumps(dict(entries)).encode()
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def test_an_average_does_not_hide_a_critic(tmp_path: Path) -> None:
    critic = attrs.evolve(T2V, num_layers=1)
    torch.save({"generator_ema": values(T2V), "critic": values(critic)}, tmp_path / "both.pt")
    small = len(diffusers_of(critic).state_dict())
    listed = f"{shown('critic.', small)}, {shown('generator_ema.')}"
    assert refused(tmp_path / "both.pt") == REFUSED.format(listed, "critic")


def test_a_larger_network_that_lacks_its_head_does_not_hide_a_whole_one(tmp_path: Path) -> None:
    critic = values(attrs.evolve(T2V, num_layers=5))
    headless = {name: value for name, value in critic.items() if not name.startswith("proj_out")}
    save_file(under("g.", values(T2V)) | under("d.", headless), tmp_path / "w.safetensors")
    assert open_weights(tmp_path / "w.safetensors").shapes == dict(T2V.parameter_shapes())


def test_moments_of_an_optimizer_and_half_a_network_are_no_second_one(tmp_path: Path) -> None:
    half = {name: value for name, value in values(T2V).items() if not name.startswith("blocks.1.")}
    beside = under("opt.exp_avg.", values(T2V)) | under("half.", half)
    save_file(under("model.", values(T2V)) | beside, tmp_path / "w.safetensors")
    found = open_weights(tmp_path / "w.safetensors")
    assert found.shapes == dict(T2V.parameter_shapes())
    assert set(found.left_out) == set(beside)


def test_of_several_kinds_the_one_asked_for_is_taken(tmp_path: Path) -> None:
    encoder = {name: fill(shape, name) for name, shape in UMT5.shapes(T5).items()}
    assert len(encoder) > len(values(T2V))
    everything = under("t5.", encoder) | under("model.diffusion_model.", values(T2V))
    save_file(everything, tmp_path / "all.safetensors")
    assert inspect_weights(tmp_path / "all.safetensors").weights.network is UMT5
    network = mm_models.build(T2V, "cpu")
    mm_models.load(network, tmp_path / "all.safetensors")
    for name, value in network.state_dict().items():
        assert torch.equal(value, values(T2V)[name]), name
    targets = {name: torch.empty_like(value) for name, value in encoder.items()}
    load_tensors(targets, tmp_path / "all.safetensors", T5)
    assert all(torch.equal(targets[name], value) for name, value in encoder.items())


@pytest.mark.parametrize("spec", [VAE_OF_21, VAE_OF_22], ids=["2.1", "2.2"])
def test_of_two_kinds_of_autoencoders_the_one_asked_for_is_taken(
    spec: WanAutoencoderSpec, tmp_path: Path
) -> None:
    both = {"a": VAE_OF_21, "b": VAE_OF_22}
    held = {
        f"{prefix}.{name}": fill(shape, name)
        for prefix, one in both.items()
        for name, shape in parameter_shapes(one).items()
    }
    save_file(held, tmp_path / "both.safetensors")
    prefix = next(prefix for prefix, one in both.items() if one == spec)
    targets = {name: torch.empty(shape) for name, shape in parameter_shapes(spec).items()}
    load_tensors(targets, tmp_path / "both.safetensors", spec)
    assert all(torch.equal(value, held[f"{prefix}.{name}"]) for name, value in targets.items())


def test_a_network_of_ones_own_is_not_taken_from_two_names(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    twice = {"weight": torch.zeros(2, 2), "module.weight": torch.ones(2, 2), "bias": torch.zeros(2)}
    save_file(twice, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"holds weight under two names; one of them is (module\.)?weight"):
        mm_models.load(network, tmp_path / "w.safetensors")


def test_many_prefixes_take_no_long_time(tmp_path: Path) -> None:
    one = torch.zeros(1)
    save_file(
        {f"p{at}.patch_embedding.weight": one.clone() for at in range(1500)}, tmp_path / "w.safetensors"
    )
    save_file(
        {"patch_embedding.weight": one, "blocks.999999999999.x": one.clone()}, tmp_path / "b.safetensors"
    )
    for name in ("w.safetensors", "b.safetensors"):
        with pytest.raises(UserError):
            mm_models.load(mm_models.build(T2V, "meta"), tmp_path / name)
