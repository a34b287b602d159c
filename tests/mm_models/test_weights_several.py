"""Several networks in one file: two of one kind are refused, of several kinds the asked one is taken."""

from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import mm_models
from mm_config.specs import RandomWeights, Umt5TextEncoderSpec
from mm_models.loading import load_tensors
from mm_models.text.umt5_names import UMT5
from mm_models.wan.names import WAN
from mm_models.weights.inspecting import inspect_weights
from mm_models.weights.opening import open_weights
from tests.mm_models.parity import fill
from tests.mm_models.refused_weights import refused
from tests.mm_models.weight_files import T2V, values

T5 = Umt5TextEncoderSpec(
    weights=RandomWeights(), text_dim=8, num_layers=20, num_heads=2, d_kv=4, d_ff=8, vocab_size=16
)
REFUSED = (
    "holds 2 whole networks (Wan's transformer): {}; nothing tells which is meant, so "
    "write the tensors of one into a file of its own and name that"
)


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


@pytest.mark.parametrize("pair", [("high.", "low."), ("", "teacher."), ("model.", "model_ema.")])
def test_two_whole_networks_in_one_file_are_refused(pair: tuple[str, str], tmp_path: Path) -> None:
    first, second = pair
    low = {WAN.theirs(name): value for name, value in values(T2V).items()}
    save_file(under(first, values(T2V)) | under(second, low), tmp_path / "both.safetensors")
    named = ", ".join(f"{prefix}*" if prefix else "names without a prefix" for prefix in pair)
    assert refused(tmp_path / "both.safetensors") == REFUSED.format(named)


def test_an_average_does_not_hide_a_critic(tmp_path: Path) -> None:
    critic = attrs.evolve(T2V, num_layers=1)
    torch.save({"generator_ema": values(T2V), "critic": values(critic)}, tmp_path / "both.pt")
    assert refused(tmp_path / "both.pt") == REFUSED.format("critic.*, generator_ema.*")


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
