"""The moving average of the weights: its formula, its place in the network, and who asks for it."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

import mm_models
import mm_train
from experiments import tiny
from mm_config import replace, rules
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.running import checkpoint_digest, resolve_weights
from mm_config.schema.errors import UserError
from mm_config.specs.dtype import Dtype
from mm_config.specs.optim import EmaSpec
from mm_config.specs.train import PrecisionSpec, StartMode, TrainSpec
from mm_config.specs.weights import SavedWeights, TrainedBy
from mm_models import checkpoint, load_group
from mm_models.contents import loaded_files, weights_input
from mm_models.networks import copy_whole
from mm_models.weights.converting import convert
from mm_train.average import Average, average_of
from mm_train.parallelize import materialize
from mm_train.sharding import reshard, shard
from tests.forked_ranks import RunRanks, all_ranks

CPU = torch.device("cpu")
SPEC = EmaSpec(decay=0.8, every_steps=2, start_step=3)


def expected(history: list[Tensor], spec: EmaSpec) -> Tensor:
    """By the formula, from the weights after each step from 0 on."""
    average = history[spec.start_step]
    for step in range(spec.start_step + spec.every_steps, len(history), spec.every_steps):
        average = spec.decay * average + (1 - spec.decay) * history[step]
    return average


def averaged(network: nn.Module, spec: EmaSpec) -> Average:
    average = average_of(network, spec)
    assert average is not None
    return average


@pytest.mark.parametrize("offload", [False, True])
def test_it_follows_the_formula(offload: bool) -> None:
    torch.manual_seed(0)
    network, spec = nn.Linear(3, 2), attrs.evolve(SPEC, offload=offload)
    network.bias.requires_grad_(False)
    history = [network.weight.detach().clone()]
    average = averaged(network, spec)
    for step in range(1, 9):
        with torch.no_grad():
            network.weight.add_(torch.randn(2, 3))
        history.append(network.weight.detach().clone())
        average.update(network, step)
        if step <= SPEC.start_step:
            assert torch.equal(average.values["weight"], history[-1])
    assert average.values.keys() == {"weight"}
    assert torch.allclose(average.tensors()["weight"], expected(history, spec), rtol=1e-6)


def test_it_takes_the_weights_place_in_a_block_and_gives_it_back_after_an_error() -> None:
    network = nn.Linear(3, 2)
    average = averaged(network, SPEC)
    with torch.no_grad():
        network.weight.mul_(3.0)
    own, kept = network.weight.detach().clone(), average.values["weight"].clone()
    with pytest.raises(KeyboardInterrupt), average.in_place_of(network):
        assert torch.equal(network.weight, kept)
        raise KeyboardInterrupt
    assert torch.equal(network.weight, own) and torch.equal(average.values["weight"], kept)


def _over_two_ranks(rank: int, small: TrainSpec, offload: bool, folder: Path) -> None:
    spec = attrs.evolve(SPEC, start_step=0, offload=offload)
    model = replace(small.model, "ffn_dim", 63)  # The shards are of two sizes.
    network = mm_models.build(model)
    shard(network, small.fsdp, PrecisionSpec(compute=Dtype.BFLOAT16), all_ranks(), CPU)
    materialize(network, CPU)
    torch.manual_seed(0)
    wholes = {name: [0.2 * torch.randn(tuple(one.shape))] for name, one in network.named_parameters()}
    latents, text = torch.randn(1, model.in_channels, 1, 4, 4), torch.randn(1, 3, model.text_dim)

    @torch.no_grad()
    def predicted(step: int) -> Tensor:
        reshard(network)
        for name, parameter in network.named_parameters():
            copy_whole(wholes[name][step], parameter)
        return network(latents.bfloat16(), torch.ones(1), text.bfloat16())

    for name, parameter in network.named_parameters():
        copy_whole(wholes[name][0], parameter.detach())
    average = averaged(network, spec)
    for step in range(1, 5):
        for values in wholes.values():
            values.append(values[-1] * (1 + 0.1 * step))
        before = predicted(step)
        reshard(network)
        average.update(network, step)
    predicted(4)
    for name, value in average.tensors().items():
        assert isinstance(value, DTensor)
        whole = value.full_tensor()
        assert torch.allclose(whole, expected(wholes[name], spec), rtol=1e-6), name
        wholes[name].append(whole.clone())
    checkpoint.save(folder / "step-00000004", {"average": average.tensors()}, {"step": 4})
    for value in average.values.values():
        value.to_local().zero_()  # type: ignore[attr-defined]
    load_group(folder / "step-00000004", "average", average.tensors())
    for name, value in average.tensors().items():
        assert isinstance(value, DTensor) and torch.equal(value.full_tensor(), wholes[name][-1]), name
    with average.in_place_of(network), torch.no_grad():
        # FSDP2 has kept the root's weights gathered since `before`.
        inside = network(latents.bfloat16(), torch.ones(1), text.bfloat16())
    with torch.no_grad():
        assert torch.equal(network(latents.bfloat16(), torch.ones(1), text.bfloat16()), before)
    assert not torch.equal(inside, before) and torch.equal(predicted(5), inside)


@pytest.mark.parametrize("offload", [False, True])
def test_shards_are_averaged_as_the_whole_and_exchanged_before_they_are_gathered(
    offload: bool, small: TrainSpec, run_ranks: RunRanks, tmp_path: Path
) -> None:
    run_ranks(_over_two_ranks, small, offload, tmp_path)


@pytest.fixture
def kept(small: TrainSpec) -> TrainSpec:
    """A training of 5 steps that keeps an average, and every step's weights."""
    changes = {
        "schedule.steps": 5,
        "ema": attrs.evolve(SPEC, start_step=1),
        "checkpoint.every_steps": 1,
        "checkpoint.keep_last": 9,
    }
    return replace(small, changes)


def group(folder: Path, name: str) -> dict[str, Tensor]:
    return {key: value for file in (folder / name).glob("*") for key, value in load_file(file).items()}


def test_a_training_keeps_it_goes_on_with_it_and_others_take_it(
    kept: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    result = mm_train.train(kept, options)
    steps = [group(path, "model") for path in reversed(checkpoint.newest_first(result.checkpoint.parent))]
    found = group(result.checkpoint, "average")
    assert kept.ema is not None and len(steps) == 5
    for name, value in found.items():
        history = [torch.empty(0), *(one[name] for one in steps)]
        assert torch.allclose(value, expected(history, kept.ema), rtol=1e-5, atol=1e-8), name
    assert any(not torch.equal(value, steps[-1][name]) for name, value in found.items())

    with pytest.raises(StoppedEarly) as stopped:
        mm_train.train(replace(kept, "name", "parts"), attrs.evolve(options, stop_after=3))
    resumed = mm_train.train(
        replace(kept, "name", "parts"), attrs.evolve(options, resume=str(stopped.value.run_dir))
    )
    for name in ("model", "optimizer", "average"):
        again, once = group(resumed.checkpoint, name), group(result.checkpoint, name)
        assert again.keys() == once.keys() and all(torch.equal(again[key], once[key]) for key in once), name

    last, average = TrainedBy(spec=kept), TrainedBy(spec=kept, average=True)
    place, folder = (resolve_weights(one, options, False) for one in (last, average))
    assert isinstance(folder, Path) and isinstance(place, Path) and folder == place / "average"
    assert len(loaded_files(folder)) == 2
    network = mm_models.build(kept.model, device="cpu")
    mm_models.load(network, folder)
    assert all(torch.equal(value, found[name]) for name, value in network.state_dict().items())
    inputs = [weights_input(last, place, tmp_path, ""), weights_input(average, folder, tmp_path, "")]
    assert [one and one.details["weights"] for one in inputs] == ["last", "average"]
    assert len({one and one.digest for one in inputs}) == 2
    # A rate this small leaves what it starts from visible in the average.
    brief = {"schedule.steps": 1, "schedule.warmup_steps": 0, "optim.lr": 1e-12, "ema": EmaSpec()}
    started = mm_train.train(replace(kept, {"start_from": average, "name": "started", **brief}), options)
    again = group(started.checkpoint, "average")
    assert all(torch.allclose(again[name], found[name], atol=1e-9) for name in found)

    convert(folder, tmp_path / "out", "diffusers")
    written = mm_models.build(kept.model, device="cpu")
    mm_models.load(written, tmp_path / "out")
    assert all(torch.equal(value, found[name]) for name, value in written.state_dict().items())


def test_it_is_asked_of_a_training_that_keeps_one(
    small: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "step-00000001", {"model": {"w": torch.ones(1)}}, {})
    saved = SavedWeights(
        digest=checkpoint_digest(tmp_path / "step-00000001"),
        path=str(tmp_path / "step-00000001"),
        average=True,
    )
    with pytest.raises(
        UserError, match=r"spec.start_from.average: is true, but .*-00000001 holds none: its "
    ):
        resolve_weights(saved, options, False, "spec.start_from")
    asked = TrainedBy(spec=small, average=True)
    keeps_none = "is true, but that training keeps none (its ema is None); leave it out"
    with pytest.raises(UserError) as caught:
        rules.check(replace(small, {"start_from": asked, "schedule.steps": 30}))
    assert [str(problem) for problem in caught.value.problems] == [f"spec.start_from.average: {keeps_none}"]
    demo = tiny.SPEC
    with pytest.raises(UserError) as caught:
        rules.check(replace(demo, "low_noise.average", True))
    assert [str(problem) for problem in caught.value.problems] == [f"spec.low_noise.average: {keeps_none}"]
    with pytest.raises(UserError) as caught:
        keeping = TrainedBy(spec=replace(small, "ema", EmaSpec()), average=True)
        changes = {"start_from": keeping, "start_mode": StartMode.RESTART}
        rules.check(replace(small, changes))
    (problem,) = caught.value.problems
    assert (
        problem.path == "spec.start_from.average" and "the optimizer's state of the last" in problem.message
    )
