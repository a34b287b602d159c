"""Matrices that ranks share, against one process: losses, gradients, their norm, and states on the disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import mm_train
from mm_config import replace, rules
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.rules import matching
from mm_config.schema import UserError
from mm_config.specs import (
    AdamWSpec,
    EmaSpec,
    LoraSpec,
    ModelSpec,
    MuonSpec,
    RandomWeights,
    Recompute,
    SamplerSpec,
    Split,
    TrainingSamplesSpec,
    TrainSpec,
    ValidationSpec,
)
from mm_data import read_mp4
from mm_models.ranks import Ranks
from mm_models.wan.architecture import families
from mm_train import states
from mm_train.carried_out import check_carried_out
from mm_train.clipping import clip_gradients
from mm_train.layout import Layout
from mm_train.optim import build_optimizer, named_moments, set_learning_rate
from mm_train.states import TrainState
from tests.forked_ranks import RunRanks
from tests.mm_train.tensor_ranks import (
    ALONE,
    CPU,
    SAMPLES,
    backward,
    built,
    gathered,
    gathered_gradients,
    layout_here,
    ranks_here,
    spec_of,
)

EVERYWHERE = (
    "blocks.*.attn?.{to_q,to_k,to_v,add_k_proj}",
    "blocks.*.attn?.to_out.0",
    "blocks.*.ffn.net.0.proj",
    "blocks.*.ffn.net.2",
    "condition_embedder.text_embedder.linear_1",
)
"""Adapters beside layers that are split by outputs, by inputs, and not at all."""
LORA: dict[str, Any] = {"lora": LoraSpec(rank=4, alpha=8.0, dropout=0.25, targets=EVERYWHERE)}
LOOKED_AT = {
    "schedule.steps": 4,
    "schedule.warmup_steps": 1,
    "ema": EmaSpec(decay=0.5),
    "validation": ValidationSpec(every_steps=4, batches=1, holdout=0.3, sigmas=(0.95,)),
    "samples": TrainingSamplesSpec(
        prompts=("a red circle moving up",),
        sampler=SamplerSpec(steps=2, guidance_high_noise=2.0),
        every_steps=4,
        other_expert=RandomWeights(seed=5),
    ),
}
STATE = TrainState(2, {"digest": "", "step": 2}, 0.0)
MOST = 0.25
"""A norm that the gradients are above."""


def _as_alone(
    rank: int,
    spec: TrainSpec,
    loss: Tensor,
    norm: Tensor,
    before: dict[str, Tensor],
    after: dict[str, Tensor],
) -> None:
    layout = layout_here(spec)
    network = built(spec, layout)
    own = backward(network, spec, layout)
    dist.all_reduce(own)
    torch.testing.assert_close(own / dist.get_world_size(), loss, rtol=1e-5, atol=1e-6)
    _are_close(gathered_gradients(network), before)
    torch.testing.assert_close(clip_gradients(network.parameters(), MOST), norm, rtol=1e-5, atol=0)
    _are_close(gathered_gradients(network), after)


def _are_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        far = (found[name] - gradient).abs().max() / gradient.abs().max()
        assert far < 1e-5, (name, float(far))


@pytest.mark.parametrize(
    ("tensor", "ranks", "more"),
    [
        (2, 2, {"recompute.mode": Recompute.FULL}),
        (2, 4, {}),
        (4, 4, {"recompute.mode": Recompute.SELECTIVE}),
        (2, 4, LORA),
    ],
    ids=["2-recomputed", "2-of-4", "4-selective", "2-of-4-adapters"],
)
def test_loss_gradients_and_norm_are_those_of_one_process(
    tensor: int, ranks: int, more: dict[str, Any], small: TrainSpec, run_ranks: RunRanks
) -> None:
    spec = spec_of(small, **more)
    network = built(spec, ALONE)
    loss = backward(network, spec, ALONE)
    trained = {name: one for name, one in network.named_parameters() if one.requires_grad}
    before = {name: one.grad.clone() for name, one in trained.items() if one.grad is not None}
    assert before.keys() == trained.keys() and all(gradient.any() for gradient in before.values())
    norm = torch.stack([gradient.square().sum() for gradient in before.values()]).sum().sqrt()
    assert norm > MOST
    after = {name: gradient * (MOST / (norm + 1e-6)) for name, gradient in before.items()}
    divided = replace(spec, {"parallel.tensor": tensor})
    run_ranks(_as_alone, divided, loss, norm, before, after, ranks=ranks)


def _kept(rank: int, spec: TrainSpec) -> None:
    layout = layout_here(spec)
    network, shapes = built(spec, layout), list[torch.Size]()
    with saved_tensors_hooks(lambda tensor: (shapes.append(tensor.shape), tensor)[1], lambda tensor: tensor):
        backward(network, spec, layout)
    width = spec.model.ffn_dim // spec.parallel.tensor
    wide = [shape for shape in shapes if shape[-1] == width and shape.numel() == SAMPLES * 12 * width]
    assert len(wide) == 1  # GELU's input: its output would be the second.


def test_of_the_widest_values_one_part_is_kept(small: TrainSpec, run_ranks: RunRanks) -> None:
    """12 tokens of a sample."""
    run_ranks(_kept, spec_of(small, **{"parallel.tensor": 2}))


def _state_of(spec: TrainSpec, layout: Layout) -> tuple[Any, Any]:
    network = built(spec, layout)
    return network, build_optimizer(network, spec.optim, CPU)


def _moved(spec: TrainSpec, layout: Layout) -> tuple[Any, Any]:
    """A network and its optimizer after two updates."""
    network, optimizer = _state_of(spec, layout)
    set_learning_rate(optimizer, 1e-2)
    for _ in range(2):
        backward(network, spec, layout)
        optimizer.step()
        optimizer.zero_grad()
    return network, optimizer


def _named(network: Any, optimizer: Any) -> dict[str, Tensor]:
    return {**states.trained_state(network), **named_moments(network, optimizer)}


def _are_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert [name for name, value in wanted.items() if not torch.equal(found[name], value)] == []


def _save(rank: int, spec: TrainSpec, folder: Path) -> None:
    network, optimizer = _moved(spec, layout_here(spec))
    whole = gathered(_named(network, optimizer))
    states.save(folder, spec, network, optimizer, STATE, ranks_here())
    if rank == 0:
        torch.save(whole, folder / "whole.pt")


def _load(rank: int, spec: TrainSpec, folder: Path, whole: dict[str, Tensor]) -> None:
    network, optimizer = _state_of(spec, layout_here(spec))
    states.restore(states.step_folder(folder, STATE.step), network, optimizer)
    _are_equal(gathered(_named(network, optimizer)), whole)


@pytest.mark.parametrize("more", [{}, {**LORA, "optim": MuonSpec()}], ids=["adamw", "adapters-muon"])
def test_a_state_is_the_same_to_the_bit_in_any_layout(
    more: dict[str, Any], small: TrainSpec, tmp_path: Path, run_ranks: RunRanks
) -> None:
    alone, divided = spec_of(small, **more), spec_of(small, **more, **{"parallel.tensor": 2})
    run_ranks(_save, divided, tmp_path, ranks=4)
    whole = torch.load(tmp_path / "whole.pt")
    network, optimizer = _state_of(alone, ALONE)
    states.restore(states.step_folder(tmp_path, STATE.step), network, optimizer)
    _are_equal(_named(network, optimizer), whole)
    here = tmp_path / "back"
    states.save(here, alone, network, optimizer, STATE, Ranks(rank=0, world_size=1, grouped=False))
    run_ranks(_load, divided, here, whole, ranks=2)


def _train(rank: int, spec: TrainSpec, options: RunOptions) -> None:
    with suppress(StoppedEarly):
        mm_train.train(spec, options)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"lora": LoraSpec(rank=3, dropout=0.1)}], ids=["whole", "adapters"])
def test_a_training_goes_on_in_another_layout(
    more: dict[str, Any],
    small: TrainSpec,
    options: RunOptions,
    run_ranks: RunRanks,
    metrics_of: Callable[[Path], list[dict[str, Any]]],
) -> None:
    def shown(run_dir: Path) -> tuple[list[float], float, Tensor]:
        rows = metrics_of(run_dir)
        (validated,) = (row["validation"]["loss"] for row in rows if "validation" in row)
        (video,) = run_dir.glob("samples/step-00000004/*.mp4")
        return [row["loss"] for row in rows if "loss" in row], validated, read_mp4(video).float()

    def is_as_alone(run_dir: Path) -> bool:
        losses, validated, video = shown(run_dir)
        numbers = pytest.approx([*alone[0], alone[1]], rel=1e-5)
        return [*losses, validated] == numbers and bool((video - alone[2]).abs().mean() < 0.5)

    spec = replace(small, {**LOOKED_AT, **more, "name": f"alone {len(more)}"})
    alone = shown(mm_train.train(spec, options).run_dir)
    begins, goes_on = attrs.evolve(options, stop_after=2), attrs.evolve(options, resume="latest")
    divided = replace(spec, {"parallel.tensor": 2, "name": f"divided first {len(more)}"})
    run_ranks(_train, divided, begins, ranks=4)
    assert is_as_alone(mm_train.train(replace(divided, {"parallel.tensor": 1}), goes_on).run_dir)
    divided = replace(divided, {"name": f"divided last {len(more)}"})
    _train(0, replace(divided, {"parallel.tensor": 1}), begins)
    run_ranks(_train, divided, goes_on, ranks=4)
    (run_dir,) = (options.runs_dir / divided.name).iterdir()
    assert is_as_alone(run_dir)


def test_plans_of_known_families_split_every_layer_inside() -> None:
    for name, spec in families().items():
        layers = {parameter.rpartition(".")[0] for parameter in spec.parameter_shapes()}
        modules = {layer.rsplit(".", count)[0] for layer in layers for count in range(4)}
        found: dict[bool, set[str]] = {True: set(), False: set()}
        for glob, split in spec.tensor_plan().items():
            found[split is Split.INSIDE].update(matching(modules, glob))
        assert len(found[True]) == 3 * spec.num_layers, name
        within = tuple(f"{outer}." for outer in found[True])
        assert {layer for layer in layers if layer.startswith(within)} == found[False], name


def test_what_cannot_be_split_is_refused_by_name(small: TrainSpec) -> None:
    with pytest.raises(UserError, match=r"spec\.parallel\.tensor: 3 ranks can't share the 4 heads"):
        rules.check(spec_of(small, **{"parallel.tensor": 3}), 3)
    both = {"parallel.tensor": 2, "parallel.ulysses": 4}
    with pytest.raises(UserError, match=r"spec\.parallel\.ulysses: 4 ranks can't share 2 of the 4 heads"):
        rules.check(spec_of(small, **both), 8)
    eight = spec_of(small, **{"parallel.tensor": 2, "optim": AdamWSpec(state_bits=8)})
    with pytest.raises(
        UserError, match=r"optim\.state_bits: is 8, whose blocks parallel\.tensor 2 would cut"
    ):
        check_carried_out(eight)
    check_carried_out(spec_of(small, **{"parallel.tensor": 2}, lora=LoraSpec(dropout=0.1)))


def test_a_network_without_a_plan_is_refused(small: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(small.model), "tensor_plan", ModelSpec.tensor_plan)
    with pytest.raises(UserError, match=r"spec\.parallel\.tensor: is 2, but spec\.model has no plan"):
        rules.check(spec_of(small, **{"parallel.tensor": 2}), 2)
