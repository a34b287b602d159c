"""Training states: what a checkpoint holds beside the format that mm_models defines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mm_config.console import say
from mm_config.durable import discard
from mm_config.schema import Problem, UserError, exact_hash, spec_hash
from mm_config.specs import CheckpointSpec, TrainSpec
from mm_config.stored import read_json, to_payload
from mm_models import Shard, checkpoint, load_group, own_shards
from mm_models.lora import adapter_parameters
from mm_models.ranks import Ranks
from mm_train.optim import make_moments, named_moments

_STATE = {"step": int, "data": {"digest": str, "step": int}, "seconds": int | float}
"""What resuming reads of a `state.json`."""
Groups = Mapping[str, Mapping[str, Tensor]]
"""Named tensors by the group of a checkpoint that holds them."""
Shards = Mapping[str, Sequence[Shard]]
"""What a rank writes of each group."""
_NOTHING: Groups = MappingProxyType({})
_LEFT = re.compile(r"(step-\d{8,}|\.step-\d{8,}\..*)\.tmp", re.DOTALL)
"""A checkpoint that was half written or half removed, by its name."""
NAMED = 4
"""Files of a damaged checkpoint that are named; the others are counted."""


@attrs.frozen
class TrainState:
    """Everything but tensors that resuming needs.

    There is no state of random number generators: every number is drawn by a generator keyed by the seed, the
    step and the sample's position, so the step is that state.
    """

    step: int
    """Optimizer steps done."""
    data: dict[str, Any]
    """The stream's state."""
    seconds: float
    """Time spent on these steps, by all processes that resumed each other."""
    updates_before: int = 0
    """Updates that the optimizer had made before step 0, in a training whose moments it took over."""
    base: str | None = None
    """The digest of the network beside which adapters are trained; None for one whose weights are drawn."""
    validation: float | None = None
    """The loss on held-out clips after these steps; None where they were not validated."""


def step_folder(checkpoints_dir: Path, step: int) -> Path:
    """The checkpoint after `step` steps."""
    return checkpoints_dir / f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """The step of a checkpoint, by its name."""
    return int(folder.name.removeprefix("step-"))


def save(
    checkpoints_dir: Path,
    spec: TrainSpec,
    network: nn.Module,
    optimizer: Optimizer,
    state: TrainState,
    ranks: Ranks,
    more: Groups = _NOTHING,
) -> Path:
    """Writes a checkpoint, then removes old ones beyond `keep_last`, once the new one is proved intact.

    Beside weights and moments it holds `more`, see `Training.more_groups`.

    Raises:
        UserError: As `commit`.
    """
    return commit(checkpoints_dir, spec, saved_shards(network, optimizer, more), state, ranks)


def saved_shards(network: nn.Module, optimizer: Optimizer, more: Groups = _NOTHING) -> Shards:
    """What this rank writes of a state, where it lies."""
    tensors = {"model": trained_state(network), "optimizer": named_moments(network, optimizer), **more}
    return {group: own_shards(named) for group, named in tensors.items()}


def commit(checkpoints_dir: Path, spec: TrainSpec, shards: Shards, state: TrainState, ranks: Ranks) -> Path:
    """Writes what `saved_shards` gave, or copies of it, and removes old checkpoints as `save` does.

    Raises:
        UserError: A weight or a moment is not finite; or it can't be written, or what was written is damaged,
            and older ones are kept.
    """
    if strange := not_finite(shards, ranks):
        rest = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
        raise UserError(
            f"step {state.step}: {strange[0]}{rest} is not finite after the update; this state is not saved. "
            f"{last_good(checkpoints_dir)}; a lower spec.optim.lr may help"
        )
    folder = step_folder(checkpoints_dir, state.step)
    content = {
        "v": 1,
        **{name: value for name, value in attrs.asdict(state).items() if value is not None},
        "spec_hash": spec_hash(spec),
        "exact_hash": exact_hash(spec),
        "spec": to_payload(spec),
        "world_size": ranks.world_size,
    }
    try:
        checkpoint.write(folder, shards, content, ranks.group)
    except OSError as error:
        raise UserError(
            Problem(str(folder), f"the checkpoint can't be written: {error.strerror or error}")
        ) from error
    ranks.on_first(lambda: prune(folder, spec.checkpoint))
    return folder


def restore(folder: Path, network: nn.Module, optimizer: Optimizer, more: Groups = _NOTHING) -> TrainState:
    """Fills what is trained, the optimizer and `more`, sharded in any way, from a checkpoint.

    Raises:
        UserError: The checkpoint holds other tensors than the network has.
    """
    content = checkpoint.read_state(folder)
    updates_before = content.get("updates_before", 0)
    state = TrainState(
        content["step"], content["data"], content["seconds"], updates_before, content.get("base")
    )
    make_moments(network, optimizer, updates_before + state.step)
    load_group(folder, "model", trained_state(network))
    load_group(folder, "optimizer", named_moments(network, optimizer))
    for group, tensors in more.items():
        load_group(folder, group, tensors)
    return state


def trained_state(network: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds of a network: the adapters beside it where there are any, else the whole."""
    state = network.state_dict()
    return {name: state[name] for name in adapter_parameters(network)} or state


def not_finite(shards: Shards, ranks: Ranks) -> list[str]:
    """The names of weights, and of moments such as `<parameter>.exp_avg_sq`, that hold an inf or a NaN.

    Each rank looks at what it writes, where that lies; reading what it found waits for the device once. The
    least and the greatest value tell: both are NaN where any is, and they take no memory.
    """
    written = [*shards["model"], *shards["optimizer"]]
    floats = [one for one in written if one.values.is_floating_point() and one.values.numel()]
    finite = [one.values.amin().isfinite() & one.values.amax().isfinite() for one in floats]
    flags: list[bool] = torch.stack(finite).tolist() if finite else []
    mine = [one.name for one, flag in zip(floats, flags, strict=True) if not flag]
    return list(dict.fromkeys(name for part in ranks.gather(mine) for name in part))


def last_good(checkpoints_dir: Path) -> str:
    """Which state is left where a run stops by a number that is not finite, in words."""
    kept = checkpoint.newest_first(checkpoints_dir)
    return f"The last good state is {kept[0]}" if kept else "No state had been saved yet"


def best_of(checkpoints_dir: Path) -> Path | None:
    """The checkpoint with the least loss on held-out clips, of equal ones the oldest; None where none was
    written after a validation."""
    losses = {path: _validation_of(path) for path in reversed(checkpoint.newest_first(checkpoints_dir))}
    known = {path: loss for path, loss in losses.items() if loss is not None}
    return min(known, key=known.__getitem__, default=None)


def _validation_of(folder: Path) -> float | None:
    """The loss on held-out clips that a checkpoint says, as long as it can be read."""
    try:
        return read_json(folder / checkpoint.STATE, {"validation": float}).get("validation")
    except UserError:
        return None


def prune(newest: Path, keep: CheckpointSpec) -> None:
    """Keeps a checkpoint that was just written, the `keep_last - 1` before it, those at multiples of
    `keep_every` and the one with the least loss on held-out clips; removes what else is older, and what a
    killed process of the run left half written or half removed.

    An old one that can't be removed is said.

    Raises:
        UserError: The newest is damaged; nothing is removed.
    """
    kept = checkpoint.newest_first(newest.parent)
    best = best_of(newest.parent)
    older = [folder for folder in kept[kept.index(newest) + keep.keep_last :] if folder != best]
    surplus = [folder for folder in older if keep.keep_every is None or step_of(folder) % keep.keep_every]
    if surplus and (damage := damage_of(newest)):
        raise UserError(Problem(str(newest), f"damaged while it was written: {damage}"))
    left = (path for path in newest.parent.iterdir() if _LEFT.fullmatch(path.name))
    for folder in (*surplus, *left):
        try:
            discard(folder)
        except OSError as error:
            say(f"{folder} is no longer needed and can't be removed: {error.strerror or error}")


def damage_of(folder: Path) -> str:
    """What is wrong with a checkpoint, in words; empty where it is intact."""
    try:
        found = checkpoint.verify(folder)
    except OSError as error:
        found = [f"can't be read: {error.strerror or error}"]
    found = found or _strange_state(folder)
    more = [f"and {len(found) - NAMED} more"] if len(found) > NAMED else []
    return "; ".join(found[:NAMED] + more)


def _strange_state(folder: Path) -> list[str]:
    """Why a state that is as it was written is none of a training of ours."""
    try:
        state = read_json(folder / checkpoint.STATE, _STATE)
    except UserError as error:
        return [f"{checkpoint.STATE}: {problem.message}" for problem in error.problems]
    wanted = {*_STATE, *(f"data.{name}" for name in _STATE["data"])}
    there = {*state, *(f"data.{name}" for name in state.get("data", ()))}
    if missing := ", ".join(sorted(wanted - there)):
        return [f"{checkpoint.STATE} has no {missing}"]
    if folder == step_folder(folder.parent, state["step"]):
        return []
    return [f"{checkpoint.STATE} says step {state['step']}"]
