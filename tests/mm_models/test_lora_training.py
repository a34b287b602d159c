"""Adapters that are trained: names, first values, gradients, sharding, and the way back into a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import mm_models
from experiments.tiny_high import SPEC
from mm_config.schema.errors import UserError
from mm_config.specs.diffusion import Expert
from mm_config.specs.lora import LoraInit, LoraSpec
from mm_config.stored import files
from mm_models import checkpoint
from mm_models.lora import dropout
from mm_models.lora.adapter import HIGH_NOISE, Adapter, Addition
from mm_models.lora.files import read_adapters
from mm_models.lora.merging import merge
from mm_models.lora.training import (
    adapter_parameters,
    attach_trainable,
    base_state,
    fill_adapters,
    initialize_adapters,
    trained_adapter,
)
from mm_models.lora.writing import save_adapters
from mm_models.networks import copy_whole
from tests.mm_models.lora_files import ATTENTION, adapter_of, assert_equal, network_of
from tests.mm_models.parity import inputs, relative_error
from tests.mm_models.weight_files import T2V

LORA = LoraSpec(rank=4, alpha=6.0)
QUERY = "blocks.0.attn1.to_q"


def loss_of(network: nn.Module) -> Tensor:
    latents, timestep, text = inputs(T2V, (2, 4, 2, 4, 4), 5)
    return network(latents, timestep, text).square().mean()


def test_adapters_stand_beside_the_weights_under_pefts_names() -> None:
    network = network_of()
    names = set(network.state_dict())
    stream = torch.get_rng_state()
    attach_trainable(network, LORA)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(value.isnan().all() for value in adapter_parameters(network).values())
    added = {f"{name}.lora_{half}.weight" for name in ATTENTION for half in "AB"}
    assert set(network.state_dict()) == names | added
    assert base_state(network).keys() == names
    assert set(adapter_parameters(network)) == added
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    assert trained == added
    assert network.get_parameter(f"{QUERY}.lora_A.weight").shape == (4, 36)
    count = sum(value.numel() for value in adapter_parameters(network).values())
    assert count == 4 * sum(36 + 36 for _ in ATTENTION)


@pytest.mark.parametrize("init", LoraInit)
def test_first_values_change_nothing_and_are_keyed_by_seed_and_name(init: LoraInit) -> None:
    network, plain = network_of(), network_of()
    attach_trainable(network, attrs.evolve(LORA, init=init))
    initialize_adapters(network, init, seed=3)
    assert torch.equal(loss_of(network), loss_of(plain))
    first = adapter_parameters(network)
    few = network_of()
    attach_trainable(few, LoraSpec(rank=4, targets=(QUERY,)))
    initialize_adapters(few, init, seed=3)
    for name, value in adapter_parameters(few).items():
        assert torch.equal(value, first[name]), name
    initialize_adapters(few, init, seed=4)
    assert not torch.equal(few.get_parameter(f"{QUERY}.lora_A.weight"), first[f"{QUERY}.lora_A.weight"])
    drawn = torch.cat([value.detach().flatten() for name, value in first.items() if "lora_A" in name])
    if init is LoraInit.KAIMING:
        assert 0.99 / 6 < float(drawn.abs().max()) <= 1 / 6  # sqrt(36) values wide
    else:
        assert abs(float(drawn.std()) - 1 / 4) < 0.01


def test_gradients_are_those_of_the_merged_weights_by_the_chain_rule() -> None:
    adapter = adapter_of(alpha=0.6)
    trained, merged = network_of(), network_of().requires_grad_(True)
    attach_trainable(trained, attrs.evolve(LORA, alpha=0.6))
    fill_adapters(trained, adapter)
    merge(merged, [Addition(adapter)])
    loss, expected = loss_of(trained), loss_of(merged)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for name, layer in adapter.layers.items():
        gradient = merged.get_parameter(f"{name}.weight").grad
        down = trained.get_parameter(f"{name}.lora_A.weight").grad
        up = trained.get_parameter(f"{name}.lora_B.weight").grad
        assert gradient is not None and down is not None and up is not None
        assert relative_error(up, layer.scale * gradient @ layer.down.T) < 1e-4, name
        assert relative_error(down, layer.scale * layer.up.T @ gradient) < 1e-4, name
    assert all(value.grad is None for name, value in trained.named_parameters() if ".lora_" not in name)


def test_dropout_takes_a_share_of_the_adapters_input_in_training_alone() -> None:
    network = nn.ModuleDict({"layer": nn.Linear(4000, 1, bias=False)})
    spec = LoraSpec(rank=1, alpha=1.0, dropout=0.25, targets=("layer",))
    dropout = attach_trainable(network, spec).dropout
    assert dropout is not None
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_(0.0 if name == "layer.weight" else 1.0)
    layer, x = network["layer"], torch.ones(2, 4000)
    assert layer.eval()(x).tolist() == [[4000], [4000]]
    dropout.begin(seed=3, step=5, positions=(8, 2), device=torch.device("cpu"))
    layer.train()
    both = counted(layer(x))
    assert all(0.73 * 4000 < kept < 0.77 * 4000 for kept in both)
    assert counted(layer(x)) == both  # Computed again it is the same.
    dropout.begin(seed=3, step=5, positions=(2,), device=torch.device("cpu"))
    assert counted(layer(x[:1])) == both[1:]
    for other in ((4, 5, 2), (3, 6, 2), (3, 5, 3)):
        dropout.begin(*other[:2], other[2:], torch.device("cpu"))
        assert counted(layer(x[:1])) != both[1:]


def counted(sums: Tensor) -> list[int]:
    """How many ones were kept of those that were summed up, each 1 / 0.75 large."""
    return (sums.detach().flatten() * 0.75).round().int().tolist()


def test_what_is_dropped_is_wellons_hash_of_the_keys_and_the_place() -> None:
    def mixed(x: np.ndarray) -> np.ndarray:
        x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
        x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
        return x ^ (x >> 16)

    keys = np.array([[3, 0xFFFFFFFF], [0x80000000, 7]], np.uint32)
    layer = np.array([0x90ABCDEF, 0x12345678], np.uint32)
    index = torch.arange(5000, dtype=torch.int32)
    found = dropout.kept(
        torch.from_numpy(keys.view(np.int32)), tuple(layer.view(np.int32).tolist()), index, 0.1
    )
    for row, key in zip(found, keys, strict=True):
        x = mixed(mixed(np.arange(5000, dtype=np.uint32) ^ key[0] ^ layer[0]) ^ key[1] ^ layer[1])
        # The least signed number comes first: half of all numbers lie below zero.
        assert row.tolist() == ((x + np.uint32(2**31)) >= round(0.1 * 2**32)).tolist()
    assert abs(found.float().mean().item() - 0.9) < 0.01
    together = found[0].float() - 0.9, found[1].float() - 0.9
    assert abs((together[0] * together[1]).mean().item()) < 0.004  # Independent: 0.09 / sqrt(5000) is 0.0013.


def test_an_adapter_comes_back_from_the_network_and_its_file_bit_for_bit(tmp_path: Path) -> None:
    adapter = adapter_of()
    network = network_of()
    attach_trainable(network, LORA)
    fill_adapters(network, adapter)
    assert_equal(trained_adapter(network, LORA.alpha), adapter)
    save_adapters({HIGH_NOISE: trained_adapter(network, LORA.alpha)}, tmp_path / "out", "peft")
    assert_equal(read_adapters(tmp_path / "out").of(Expert.SINGLE), adapter)


def test_a_trainings_checkpoint_is_an_adapter_with_the_alpha_of_its_spec(tmp_path: Path) -> None:
    network = network_of()
    attach_trainable(network, LORA)
    fill_adapters(network, adapter_of())
    folder = tmp_path / "run" / "checkpoints" / "step-00000001"
    folder.parent.mkdir(parents=True)
    checkpoint.save(folder, {"model": adapter_parameters(network)}, {"step": 1})
    with pytest.raises(UserError, match=r"spec\.json, which says alpha, is missing or trained no adapters"):
        read_adapters(folder)
    spec = attrs.evolve(SPEC, lora=LORA)
    (tmp_path / "run" / "spec.json").write_text(files.dumps(spec, "json"))
    read = read_adapters(folder)
    assert read.style == "dcp"
    assert_equal(read.of(Expert.HIGH_NOISE), adapter_of())
    spec = attrs.evolve(SPEC, lora=attrs.evolve(LORA, rank=8))
    (tmp_path / "run" / "spec.json").write_text(files.dumps(spec, "json"))
    with pytest.raises(UserError, match=r"has rank 4, its configuration says 8"):
        read_adapters(folder)


def test_targets_and_files_that_do_not_fit_are_named() -> None:
    network = network_of()
    with pytest.raises(UserError, match=r"spec\.lora\.targets\.1: 'blocks.* matches no linear layer"):
        attach_trainable(network, LoraSpec(targets=("blocks.*.attn1.to_q", "blocks.*.norm2")))
    assert all(value.requires_grad for value in network.parameters())
    attach_trainable(network, LORA)
    initialize_adapters(network, LoraInit.KAIMING, seed=0)
    before = {name: value.detach().clone() for name, value in adapter_parameters(network).items()}
    (layer,) = adapter_of([QUERY]).layers.values()
    dora = {QUERY: attrs.evolve(layer, magnitude=torch.ones(36, 1))}
    others = adapter_of(rank=5), adapter_of(ATTENTION[1:]), adapter_of((*ATTENTION, "proj_out"))
    for adapter in (*others, Adapter({**adapter_of().layers, **dora})):
        with pytest.raises(UserError, match="has other layers or ranks than are trained, in"):
            fill_adapters(network, adapter)
    assert all(torch.equal(value, before[name]) for name, value in adapter_parameters(network).items())


def _train_shards(rank: int, folder: Path) -> None:
    """From meta to a step on two ranks, as a training will do it, beside the same on one."""
    plain = network_of()
    attach_trainable(plain, LORA)
    initialize_adapters(plain, LoraInit.GAUSSIAN, seed=7)
    sharded = mm_models.build(T2V)
    attach_trainable(sharded, LORA)
    mesh = init_device_mesh("cpu", (2,))
    for block in sharded.get_submodule("blocks").children():
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    sharded.to_empty(device="cpu")
    sharded.init_buffers("cpu")  # type: ignore[operator]
    for name, target in base_state(sharded).items():
        copy_whole(plain.get_parameter(name), target)
    initialize_adapters(sharded, LoraInit.GAUSSIAN, seed=7)
    for network in (plain, sharded):
        optimizer = torch.optim.SGD(adapter_parameters(network).values(), lr=0.1)
        for _ in range(2):  # After the first step both halves have gradients.
            optimizer.zero_grad()
            loss_of(network).backward()
            optimizer.step()
    expected, trained = trained_adapter(plain, LORA.alpha), trained_adapter(sharded, LORA.alpha)
    assert expected.layers[QUERY].up.any()
    for name, layer in trained.layers.items():
        torch.testing.assert_close(layer.down, expected.layers[name].down)
        torch.testing.assert_close(layer.up, expected.layers[name].up)
    run = folder / "run"
    target = run / "checkpoints" / "step-00000002"
    if rank == 0:
        target.parent.mkdir(parents=True)
        (run / "spec.json").write_text(files.dumps(attrs.evolve(SPEC, lora=LORA), "json"))
    torch.distributed.barrier()
    checkpoint.save(target, {"model": adapter_parameters(sharded)}, {"step": 2})
    assert_equal(read_adapters(target).of(Expert.SINGLE), trained)


def test_two_ranks_train_what_one_trains(run_ranks: Callable[..., None], tmp_path: Path) -> None:
    run_ranks(_train_shards, tmp_path)
