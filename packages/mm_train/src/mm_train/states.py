"""Training states: what a checkpoint holds beside the format that mm_models defines."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import attrs
from torch import nn
from torch.optim import Optimizer

from mm_config.schema import Problem, UserError, exact_hash, spec_hash
from mm_config.specs import TrainSpec
from mm_config.stored import to_payload
from mm_models import checkpoint, load_group
from mm_train.optim import make_moments, named_moments
from mm_train.ranks import Ranks


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


def step_folder(checkpoints_dir: Path, step: int) -> Path:
    """The checkpoint after `step` steps."""
    return checkpoints_dir / f"step-{step:08d}"


def save(
    checkpoints_dir: Path,
    spec: TrainSpec,
    network: nn.Module,
    optimizer: Optimizer,
    state: TrainState,
    ranks: Ranks,
) -> Path:
    """Writes a checkpoint, then removes old ones beyond `keep_last`, once the new one is proved intact.

    Raises:
        UserError: It can't be written, or what was written is damaged; older ones are kept then.
    """
    folder = step_folder(checkpoints_dir, state.step)
    tensors = {"model": network.state_dict(), "optimizer": named_moments(network, optimizer)}
    content = {
        "v": 1,
        **attrs.asdict(state),
        "spec_hash": spec_hash(spec),
        "exact_hash": exact_hash(spec),
        "spec": to_payload(spec),
        "world_size": ranks.world_size,
    }
    try:
        checkpoint.save(folder, tensors, content)
    except OSError as error:
        raise UserError(Problem(str(folder), f"the checkpoint can't be written: {error.strerror}")) from error
    ranks.on_first(lambda: prune(folder, spec.checkpoint.keep_last))
    return folder


def restore(folder: Path, network: nn.Module, optimizer: Optimizer) -> TrainState:
    """Fills the network and the optimizer, sharded in any way, from a checkpoint.

    Raises:
        UserError: The checkpoint holds other tensors than the network has.
    """
    content = checkpoint.read_state(folder)
    state = TrainState(content["step"], content["data"], content["seconds"])
    make_moments(network, optimizer, state.step)
    load_group(folder, "model", network.state_dict())
    load_group(folder, "optimizer", named_moments(network, optimizer))
    return state


def prune(newest: Path, keep_last: int) -> None:
    """Keeps a checkpoint that was just written and the `keep_last - 1` before it; removes what is older.

    Later steps in the same folder are damaged states that a resumed run passed over; it writes them anew.

    Raises:
        UserError: The newest is damaged; nothing is removed.
    """
    older = sorted(folder for folder in newest.parent.glob("step-" + "[0-9]" * 8) if folder < newest)
    surplus = older[: max(len(older) + 1 - keep_last, 0)]
    if not surplus:
        return
    if damage := checkpoint.verify(newest):
        raise UserError(Problem(str(newest), f"damaged while it was written: {'; '.join(damage)}"))
    for folder in surplus:
        shutil.rmtree(folder)
