"""Holds claimed jobs while they are made: renews leases beside the work, and hears what became of them."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from mm_config.console import aside
from mm_config.schema import UserError
from mm_infer.jobs.queue import Queue
from mm_infer.jobs.queued import Held, Job


class Holding:
    """What is known of jobs that a worker makes together."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.progress = 0.0
        """Share that is done, told with the next renewal."""
        self._given_up: dict[str, Held] = {}
        self._jobs = jobs

    def state(self, job: Job) -> Held:
        """Whether a job is still the worker's own."""
        return self._given_up.get(job.id, Held.STILL)

    @property
    def is_broken(self) -> bool:
        """Whether one of them is not wanted any more, or not from this worker."""
        return bool(self._given_up)

    def renew(self, queue: Queue, lease: float) -> None:
        """Renews what is held still."""
        for job in self._jobs:
            if job.id not in self._given_up:
                held = queue.renew(job, lease, self.progress)
                if held is not Held.STILL:
                    self._given_up[job.id] = held


@contextmanager
def holding(queue: Queue, jobs: Sequence[Job], lease: float) -> Generator[Holding]:
    """Renews the leases of jobs three times as often as they run out, until the block ends.

    A database that can't be reached for a while is told of; leases that run out meanwhile are lost, and with
    them what is made.
    """
    held, done = Holding(jobs), threading.Event()

    def renew() -> None:
        while not done.wait(lease / 3):
            try:
                held.renew(queue, lease)
            except UserError as error:
                aside(f"leases can't be renewed: {error}")

    thread = threading.Thread(target=renew, name="leases", daemon=True)
    thread.start()
    try:
        yield held
    finally:
        done.set()
        thread.join()
