"""Trainings of adapters that stop, go on, are split, save memory, or start from others' adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import mm_train
from mm_config import replace
from mm_config.durable import discard
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs import Decay, Dtype, EmaSpec, ReleasedWeights, StartMode, TrainedBy
from mm_config.specs.parallel import Recompute
from mm_config.specs.train import TrainSpec
from mm_models import checkpoint
from mm_models.lora.files import read_adapters
from mm_models.lora.training import adapter_parameters
from mm_models.lora.unmerged import Attached
from mm_models.ops import Ops
from mm_train import adapters, training
from mm_train.results import TrainResult
from tests.mm_train.adapted import BASE, LORA, adapter_file, small_adapters

DROPPING = attrs.evolve(LORA, dropout=0.25)
Losses = Callable[[Path], list[float]]


@pytest.fixture
def dropping(small: TrainSpec) -> TrainSpec:
    """Of four steps, two for each checkpoint, with dropout."""
    return small_adapters(small, **{"lora": DROPPING, "schedule.steps": 4, "checkpoint.every_steps": 2})


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_checkpoint_holds_adapters_and_their_moments_and_goes_on_bit_for_bit(
    dropping: TrainSpec, options: RunOptions, losses_of: Losses
) -> None:
    whole = mm_train.train(dropping, options)
    names = {f"{layer}.lora_{half}.weight" for layer in layers() for half in "AB"}
    saved = tensors_of(whole.checkpoint / "model"), tensors_of(whole.checkpoint / "optimizer")
    assert saved[0].keys() == names
    assert saved[1].keys() == {f"{name}.{kept}" for name in names for kept in ("exp_avg", "exp_avg_sq")}
    state = json.loads((whole.checkpoint / "state.json").read_text())
    assert len(state["base"]) == 64
    assert same({f"transformer.{name}": value for name, value in saved[0].items()}, adapter_file(whole))
    expected, values = losses_of(whole.run_dir), adapter_file(whole)
    discard(whole.checkpoint)
    again = mm_train.train(dropping, attrs.evolve(options, resume=str(whole.run_dir)))
    assert losses_of(again.run_dir) == expected and same(adapter_file(again), values)
    assert read_adapters(again.checkpoint).style == "dcp"
    without = mm_train.train(replace(dropping, {"lora": LORA, "name": f"{dropping.name}_none"}), options)
    first, *later = (losses_of(run.run_dir) for run in (whole, without))
    assert first[0] == later[0][0] and first[1] != later[0][1]  # The first product is zero.


def layers() -> set[str]:
    attention = {f"blocks.{block}.attn{index}.to_{x}" for block in (0, 1) for index in (1, 2) for x in "qv"}
    return attention | {f"blocks.{block}.ffn.net.2" for block in (0, 1)}


@pytest.mark.parametrize(
    ("change", "bitwise"),
    [({"recompute.mode": Recompute.FULL}, True), ({"runtime.micro_batch_size": 1}, False)],
    ids=["recompute", "micro-batches"],
)
def test_what_is_dropped_depends_on_the_sample_alone(
    dropping: TrainSpec,
    options: RunOptions,
    losses_of: Losses,
    change: dict[str, object],
    bitwise: bool,
) -> None:
    plain = mm_train.train(dropping, attrs.evolve(options, if_needed=True))
    other = mm_train.train(replace(dropping, {**change, "name": f"{dropping.name}_other"}), options)
    expected, found = losses_of(plain.run_dir), losses_of(other.run_dir)
    assert found == expected if bitwise else found == pytest.approx(expected, rel=1e-5)


def test_in_bfloat16_the_network_has_no_second_copy_and_the_same_values(
    small: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch, losses_of: Losses
) -> None:
    half = small_adapters(small, **{"precision.compute": Dtype.BFLOAT16})
    networks: list[nn.Module] = []

    def keep(spec: TrainSpec, ops: Ops) -> tuple[nn.Module, Attached | None]:
        network, attached = adapters.build_network(spec, ops)
        networks.append(network)
        return network, attached

    monkeypatch.setattr(training, "build_network", keep)
    result = mm_train.train(half, options)
    trained = adapter_parameters(networks[-1])
    kinds = {name: value.dtype for name, value in networks[-1].named_parameters() if name not in trained}
    assert {value.dtype for value in trained.values()} == {torch.float32}
    assert {name for name, kind in kinds.items() if kind == torch.float32} == {
        name for name in kinds if half.model.stays_float32(name)
    }
    monkeypatch.setattr(adapters, "torch_dtype", lambda dtype: torch.float32)
    wide = mm_train.train(replace(half, "name", f"{half.name}_wide"), options)
    assert {value.dtype for value in networks[-1].parameters()} == {torch.float32}
    assert losses_of(wide.run_dir) == losses_of(result.run_dir)
    assert same(adapter_file(wide), adapter_file(result))


def _train(rank: int, spec: TrainSpec, options: RunOptions) -> None:
    mm_train.train(spec, options)


def test_two_ranks_train_the_adapters_that_one_trains(
    dropping: TrainSpec, options: RunOptions, run_ranks: Callable[..., None], losses_of: Losses
) -> None:
    alone = mm_train.train(dropping, attrs.evolve(options, if_needed=True))
    both = replace(dropping, "name", f"{dropping.name}_both")
    run_ranks(_train, both, options)
    result = mm_train.train(both, attrs.evolve(options, resume="latest"))
    assert losses_of(result.run_dir) == pytest.approx(losses_of(alone.run_dir), rel=1e-5)
    for name, value in adapter_file(alone).items():
        torch.testing.assert_close(adapter_file(result)[name], value, rtol=1e-3, atol=1e-5)


def test_adapters_go_on_where_others_or_a_training_ended(
    small: TrainSpec, options: RunOptions, losses_of: Losses, tmp_path: Path
) -> None:
    spec = small_adapters(small)
    first = mm_train.train(spec, options)
    assert first.adapter is not None
    still = {"optim.lr": 1e-30, "lora.start_from": TrainedBy(spec=spec), "name": f"{small.name}_still"}
    found = mm_train.train(replace(spec, still), options)
    assert same(adapter_file(found), adapter_file(first))
    assert "spec.lora.start_from" in json.loads((found.run_dir / "inputs.json").read_text())["inputs"]
    located = attrs.evolve(options, locations=Locations((Location("adapter", first.adapter, "test"),)))
    released = {**still, "lora.start_from": ReleasedWeights(name="adapter")}
    assert same(adapter_file(mm_train.train(replace(spec, released), located)), adapter_file(first))
    for change, message in (
        ({"lora.alpha": 3.0}, "scales blocks.0.attn1.to_q by 2; spec.lora.alpha / spec.lora.rank is 1"),
        ({"lora.targets": LORA.targets[:1]}, "has other layers or ranks than are trained, in 4 tensors"),
    ):
        with pytest.raises(UserError, match=f"spec.lora.start_from: .*{message}"):
            mm_train.train(replace(spec, {**released, **change, "name": "refused"}), located)
    assert not (options.runs_dir / "refused").exists()


def test_another_network_is_not_taken_for_that_of_a_checkpoint(
    small: TrainSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    base = replace(BASE, "name", f"{small.name}_base")
    spec = small_adapters(small, **{"start_from": TrainedBy(spec=base), "schedule.steps": 3})
    brief = attrs.evolve(options, stop_after=1)
    with pytest.raises(Exception, match="after step 1"):
        mm_train.train(spec, brief)
    trained: TrainResult = mm_train.train(base, attrs.evolve(options, if_needed=True))
    state = checkpoint.read_state(trained.checkpoint)
    tensors = tensors_of(trained.checkpoint / "model")
    discard(trained.checkpoint)
    checkpoint.save(trained.checkpoint, {"model": {k: v + 1e-3 for k, v in tensors.items()}}, state)
    again = attrs.evolve(options, resume="latest")
    with pytest.raises(UserError, match=r"spec\.start_from: is not what .*step-00000001 was trained beside"):
        mm_train.train(spec, again)
    mm_train.train(spec, attrs.evolve(again, accept_content=True))
    assert "was trained beside: its files are" in capsys.readouterr().out


def test_what_is_frozen_stays_and_the_rest_is_trained_as_before(
    small: TrainSpec, options: RunOptions
) -> None:
    changes = {"lora": None, "optim.max_grad_norm": 1e6}
    plain = small_adapters(small, **changes)
    frozen = replace(plain, {"frozen": ("blocks.0.*", "*.bias"), "name": f"{small.name}_some"})
    found = [mm_train.train(one, options).checkpoint for one in (plain, frozen)]
    base = mm_train.train(BASE, attrs.evolve(options, if_needed=True)).checkpoint
    before, first, some = (tensors_of(folder / "model") for folder in (base, *found))
    stays = {name for name in before if name.startswith("blocks.0.") or name.endswith(".bias")}
    assert not any(torch.equal(first[name], before[name]) for name in before)
    assert same(some, {name: (before if name in stays else first)[name] for name in before})
    moments = {name.rpartition(".")[0] for name in tensors_of(found[1] / "optimizer")}
    assert moments == before.keys() - stays


def test_a_training_goes_on_with_the_adapters_moments_and_average_of_another(
    small: TrainSpec, options: RunOptions, losses_of: Losses
) -> None:
    kept = {"ema": EmaSpec(decay=0.5), "schedule.decay": Decay.CONSTANT}
    whole = small_adapters(small, **{**kept, "schedule.steps": 4})
    first = replace(whole, {"schedule.steps": 2, "name": f"{small.name}_first"})
    exact = {"start_mode": StartMode.EXACT, "start_from": TrainedBy(spec=first), "name": f"{small.name}_more"}
    expected, found = mm_train.train(whole, options), mm_train.train(replace(whole, exact), options)
    assert losses_of(found.run_dir) == losses_of(expected.run_dir)[2:]
    assert same(adapter_file(found), adapter_file(expected))
    states = [json.loads((one.checkpoint / "state.json").read_text()) for one in (expected, found)]
    assert states[0]["base"] == states[1]["base"]
    averages = [read_adapters(one.checkpoint / "average").of(whole.expert) for one in (expected, found)]
    values = [{name: layer.up for name, layer in one.layers.items()} for one in averages]
    assert same(*values) and {layer.scale for layer in averages[0].layers.values()} == {2.0}
    last = {name: read_adapters(found.checkpoint).of(whole.expert).layers[name].up for name in values[0]}
    assert not any(torch.equal(value, last[name]) for name, value in values[0].items())
