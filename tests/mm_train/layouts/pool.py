"""Forked ranks that carry out one order after the other, so that a cell costs no start of processes."""

from __future__ import annotations

import gc
import multiprocessing as mp
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

SECONDS = 120.0
"""Longest time for one order."""
GRACE = 1.0
"""Time for further ranks to tell their own error after the first one."""


class Pool:
    """Ranks of one gloo group, forked at the first order and again after one that failed.

    Args:
        work: What a rank does with an order; its result is plain data.
        folder: Where ranks meet.
        ranks: How many there are.
    """

    def __init__(self, work: Callable[[Any], Any], folder: Path, ranks: int) -> None:
        self._work, self._folder, self._ranks = work, folder, ranks
        self._members: list[tuple[Any, Connection]] = []
        self._forks = 0

    def ask(self, order: Any) -> list[Any]:
        """Each rank's result.

        Raises:
            AssertionError: A rank failed, with the tracebacks of all that told one, or they took too long.
        """
        if not self._members:
            self._fork()
        for _, pipe in self._members:
            pipe.send(order)
        told: dict[int, Any] = {}
        failures: dict[int, str] = {}
        deadline = time.monotonic() + SECONDS
        while len(told) + len(failures) < self._ranks and (left := deadline - time.monotonic()) > 0:
            places = {
                pipe: rank
                for rank, (_, pipe) in enumerate(self._members)
                if rank not in told and rank not in failures
            }
            for pipe in wait(list(places), left):
                rank = places[pipe]  # type: ignore[index]
                try:
                    good, value = pipe.recv()  # type: ignore[union-attr]
                except EOFError:
                    good, value = False, "it died"
                (told if good else failures)[rank] = value
            if failures:
                deadline = min(deadline, time.monotonic() + GRACE)
        if len(told) < self._ranks:
            self.close()
            silent = sorted(set(range(self._ranks)) - told.keys() - failures.keys())
            lines = [f"rank {rank}: {text}" for rank, text in sorted(failures.items())]
            raise AssertionError("\n".join([f"ranks without an answer: {silent}", *lines]))
        return [told[rank] for rank in range(self._ranks)]

    def close(self) -> None:
        """Ends the ranks."""
        for process, pipe in self._members:
            pipe.close()
            process.kill()
            process.join()
        self._members.clear()

    def _fork(self) -> None:
        self._forks += 1
        forking = mp.get_context("fork")
        store = self._folder / f"store{self._forks}"
        for rank in range(self._ranks):
            ours, theirs = forking.Pipe()
            process = forking.Process(target=self._rank, args=(rank, store, theirs), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))

    def _rank(self, rank: int, store: Path, pipe: Connection) -> None:
        torch.set_num_threads(1)
        gc.freeze()  # What the tests before left may have threads, which a fork has not and can't wait for.
        timeout = timedelta(seconds=SECONDS)
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=self._ranks, timeout=timeout
        )
        while True:
            try:
                order = pipe.recv()
            except EOFError:
                return
            try:
                answer = True, self._work(order)
            except Exception:
                answer = False, traceback.format_exc()
            pipe.send(answer)
