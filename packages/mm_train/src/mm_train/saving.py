"""Writes the states of a training, while it goes on where the spec asks for that."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from mm_config.console import say
from mm_config.options import StoppedEarly
from mm_config.running import Stopped
from mm_config.schema import UserError
from mm_config.specs import TrainSpec
from mm_models import Shard
from mm_models.device import pinned_like
from mm_models.ranks import Ranks
from mm_train import states
from mm_train.layout import timeout_of
from mm_train.metrics import Sink, send
from mm_train.states import Groups, Shards, TrainState

FAILED = 1 << 16
"""Greater than the number of any signal: what a rank says whose state could not be written."""
_ORDERLY = (UserError, Stopped, StoppedEarly, KeyboardInterrupt)
"""How a training ends while its ranks still follow each other."""


class Saving:
    """The states of a training on their way to the disk: at most one. Every rank makes the same calls.

    Where the spec asks for it, a state is copied into the host's memory, and a thread writes the copy as any
    other state is written. Its ranks speak by a group of their own, so that the training's may speak as well.
    """

    def __init__(self, checkpoints_dir: Path, spec: TrainSpec, ranks: Ranks) -> None:
        self._folder, self._spec, self._ranks = checkpoints_dir, spec, ranks
        several = spec.checkpoint.asynchronous and ranks.world_size > 1
        group = dist.new_group(backend="gloo", timeout=timeout_of(spec)) if several else None
        self._beside = attrs.evolve(ranks, group=group, watch=None)
        self._copies: dict[tuple[str, str], Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._count = 0
        self._copying = self._waiting = self._writing = self._slowest = 0.0

    @property
    def beside(self) -> float:
        """Seconds by which a stop takes longer than `save`: for the state on its way, and its own."""
        return 2 * self._slowest

    @property
    def failed(self) -> int:
        """`FAILED` where the state on its way could not be written, else 0."""
        return 0 if self._error is None else FAILED

    def save(
        self, network: nn.Module, optimizer: Optimizer, state: TrainState, more: Groups, sinks: Iterable[Sink]
    ) -> None:
        """Writes a state, or begins to, once the one before is written.

        Args:
            network: As for `states.save`.
            optimizer: As for `states.save`.
            state: As for `states.save`.
            more: As for `states.save`.
            sinks: Are told how long a copy kept the training waiting.

        Raises:
            UserError: It or, where copies are written, the one before is not finite or can't be written, see
                `states.save`.
        """
        begun = time.perf_counter()
        self.settle()
        waited = time.perf_counter() - begun
        if not self._spec.checkpoint.asynchronous:
            states.save(self._folder, self._spec, network, optimizer, state, self._ranks, more)
            return
        copies = self._copied(states.saved_shards(network, optimizer, more))
        self._thread = threading.Thread(target=self._write, args=(copies, state), name="saving", daemon=True)
        self._thread.start()
        copied = time.perf_counter() - begun - waited
        self._count += 1
        self._copying += copied
        self._waiting += waited
        stall = {"copy_seconds": copied, "wait_seconds": waited}
        send(sinks, {"step": state.step, "checkpoint": stall})

    def settle(self) -> None:
        """Waits until the state on its way is written.

        Raises:
            UserError: It can't be; on every rank.
        """
        if self._thread is None:
            return
        self._thread.join()
        error, self._thread, self._error = self._error, None, None

        def tell() -> None:
            if error is not None:
                raise error

        self._ranks.together(tell)

    def last_good(self) -> str:
        """As `states.last_good`, once the state on its way is written."""
        if self._thread is not None:
            self._thread.join()
        return states.last_good(self._folder)

    def told(self) -> str:
        """What came of writing beside the steps, in a line; empty where nothing was."""
        if not self._count:
            return ""
        return (
            f"{self._count} checkpoints written beside the steps in {self._writing:.1f} s; "
            f"steps waited {self._copying:.2f} s for copies, {self._waiting:.2f} s for the one before"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets the state on its way be written where the training ends; not where a rank may be gone."""
        if self._thread is None:
            return
        if isinstance(error, _ORDERLY):
            self._thread.join()
        if self._error is not None and error is not self._error:
            say(str(self._error))

    def _copied(self, shards: Shards) -> Shards:
        """Shards whose values lie in memory of the host that is theirs from the first copy on."""
        copies: dict[str, list[Shard]] = {}
        for group, own in shards.items():
            copies[group] = []
            for shard in own:
                copy = self._copies.get((group, shard.name))
                if copy is None:
                    copy = self._copies[group, shard.name] = pinned_like(shard.values)
                copy.copy_(shard.values, non_blocking=True)
                copies[group].append(attrs.evolve(shard, values=copy))
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        return copies

    def _write(self, shards: Shards, state: TrainState) -> None:
        begun = time.perf_counter()
        try:
            states.commit(self._folder, self._spec, shards, state, self._beside)
        except Exception as error:
            self._error = error
        seconds = time.perf_counter() - begun
        self._writing += seconds
        self._slowest = max(self._slowest, seconds)
