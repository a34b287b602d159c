"""A moving average of the weights, kept beside them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import attrs
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mm_config.specs import EmaSpec
from mm_models.device import pinned
from mm_train.clipping import local_of
from mm_train.sharding import reshard


@attrs.frozen
class Average:
    """The average of a network's trainable parameters, in float32 and sharded as they are.

    Up to `start_step` it is the weights themselves. After each `every_steps`-th step from there on

        average = decay * average + (1 - decay) * weights
    """

    spec: EmaSpec
    """How it moves, and whether it lies in the host's memory."""
    values: dict[str, Tensor]
    """By the names of parameters."""

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Follows the weights that the network has after `step` steps; nothing waits for the device."""
        since_start, share = step - self.spec.start_step, 1 - self.spec.decay
        if since_start > 0 and since_start % self.spec.every_steps:
            return
        kept, weights = self._beside(network)
        if since_start <= 0:
            torch._foreach_copy_(kept, weights, non_blocking=True)  # type: ignore[attr-defined]
        elif self.spec.offload:
            for own, weight in zip(kept, weights, strict=True):
                moved = own.to(weight.device, non_blocking=True)
                own.copy_(moved.lerp_(weight, share), non_blocking=True)
        else:
            torch._foreach_lerp_(kept, weights, share)  # type: ignore[attr-defined]

    @contextmanager
    def in_place_of(self, network: nn.Module) -> Generator[None]:
        """Has the network compute with the average in a block; it has its own weights again afterwards.

        Both are exchanged tensor by tensor, to the bit, so that no second copy of the network is needed. A
        state that is saved inside the block would hold them exchanged.
        """
        self._exchange(network)
        try:
            yield
        finally:
            self._exchange(network)

    def tensors(self) -> dict[str, Tensor]:
        """The values by name, where nothing is on its way to them any more: what a checkpoint holds."""
        if self.spec.offload:
            _wait_for_copies()
        return self.values

    @torch.no_grad()
    def _exchange(self, network: nn.Module) -> None:
        reshard(network)
        _wait_for_copies()  # Weights in the host's memory may still be read by the last pass.
        for own, weight in zip(*self._beside(network), strict=True):
            before = weight.clone()
            weight.copy_(own, non_blocking=True)
            own.copy_(before, non_blocking=True)

    def _beside(self, network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """This rank's parts of the average and of the weights, in one order."""
        parameters = dict(network.named_parameters())
        return (
            [local_of(value) for value in self.values.values()],
            [local_of(parameters[name]) for name in self.values],
        )


@torch.no_grad()
def average_of(network: nn.Module, spec: EmaSpec | None) -> Average | None:
    """An average of a network's weights as they are, which may still be none; None where none is asked for.

    Args:
        network: Sharded or not, on its device, with the parameters that are trained decided.
        spec: How it moves.
    """
    if spec is None:
        return None
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    narrow = [name for name, value in trained.items() if value.dtype != torch.float32]
    assert not narrow, f"trained parameters are float32, but not {narrow[:10]}"
    return Average(spec, {name: _copy(value, spec.offload) for name, value in trained.items()})


def _copy(parameter: Tensor, offload: bool) -> Tensor:
    if not offload:
        return parameter.detach().clone()
    local = local_of(parameter)
    moved = pinned(local.to("cpu", copy=True), local.device)
    if isinstance(parameter, DTensor):
        # Beside its mesh, as FSDP2's own offloading has it; `from_local` would move it back.
        return DTensor(moved, parameter._spec, requires_grad=False)
    return moved


def _wait_for_copies() -> None:
    """Nothing is on its way between the host's memory and a device afterwards."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
