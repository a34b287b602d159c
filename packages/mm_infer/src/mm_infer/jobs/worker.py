"""`mm worker`: makes what the queue asks for, for as long as it is let."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config.console import say
from mm_config.options import RunOptions
from mm_config.schema import UserError, spec_hash
from mm_config.specs import InferSpec
from mm_config.stored import from_payload, to_payload
from mm_data import write_strip
from mm_infer.jobs.holding import Holding, holding
from mm_infer.jobs.items import VIDEO, Item, read_item
from mm_infer.jobs.making import Maker, make_items, open_maker
from mm_infer.jobs.queue import Queue, open_queue
from mm_infer.jobs.queued import Held, Job
from mm_infer.layout import laid_out
from mm_infer.previews import Preview
from mm_infer.watching import Watch
from mm_models import stop_requests

POLL_SECONDS = 1.0
"""Between two looks at a queue in which nothing waits."""
PREVIEWS = "previews"
"""Folder of the last preview of each job, `ID.png`, where the spec asks for previews."""


class GivenUp(KeyboardInterrupt):
    """What is being made is not wanted any more, or the worker was asked to stop: as Ctrl-C, but for the jobs
    alone."""


@attrs.frozen(eq=False)
class Worker:
    """A loaded model that makes jobs of a queue; all its ranks make its calls together."""

    maker: Maker
    """What makes them."""
    queue: Queue
    """Where they come from; the first rank asks it."""
    out: Path
    """Gets a folder for each, named by its id."""
    lease: float
    """Seconds for which a job is held without a word."""
    stop_requested: Callable[[], int]
    """Whether a signal has asked to stop, or 0."""

    def turn(self) -> bool:
        """Makes the next jobs, as many as fit together; False where none waits.

        Raises:
            UserError: The queue can't be used, or the record of a failure can't be written.
        """
        ranks = self.maker.pipeline.layout.ranks
        jobs: dict[str, Job] = {}
        told = ranks.on_first(lambda: self._claim(jobs))
        items = [
            Item(name, from_payload(request, "request"), place=name, made_of=made_of)
            for name, request, made_of in told
        ]
        if not items:
            return False
        with holding(self.queue, list(jobs.values()), self.lease) as held:
            try:
                make_items(self.maker, items, self.out, self._end(jobs), self._watch(held, items))
            except GivenUp:
                for job in jobs.values():
                    self._give_up(job, held.state(job))
            except Exception as error:
                for job in jobs.values():
                    self.queue.fail(job, f"{type(error).__name__}: {error}", again=True)
                raise
        return True

    def _claim(self, jobs: dict[str, Job]) -> list[tuple[str, Any, str]]:
        """Takes jobs, and ends those that can't be begun or that a lost worker had made."""
        model, told = spec_hash(self.maker.generation.spec), list[tuple[str, Any, str]]()
        name = f"{platform.node()}-{os.getpid()}"
        while len(told) < self.maker.at_once and (job := self.queue.claim(name, [model], self.lease)):
            try:
                made_of = self.maker.made_of(job.request)
                self.maker.check(job.request)
            except UserError as error:
                self.queue.fail(job, str(error))
                continue
            if (result := _made_already(self.out / job.id, made_of)) is not None:
                self.queue.complete(job, result)
                continue
            jobs[job.id] = job
            told.append((job.id, to_payload(job.request), made_of))
        return told

    def _end(self, jobs: Mapping[str, Job]) -> Callable[[Item, Path | UserError], None]:
        """Tells the queue, which the first rank speaks to, what a job came to."""

        def end(item: Item, outcome: Path | UserError) -> None:
            if (job := jobs.get(item.name)) is None:
                return
            if isinstance(outcome, UserError):
                self.queue.fail(job, str(outcome))
                say(f"{job.id} failed: {outcome}")
            else:
                self.queue.complete(job, _told(outcome))
                say(f"{job.id} {outcome / VIDEO}")

        return end

    def _give_up(self, job: Job, state: Held) -> None:
        if state is Held.CANCELLED:
            self.queue.cancelled(job)
        elif state is Held.STILL:
            self.queue.hand_back(job)

    def _watch(self, held: Holding, items: list[Item]) -> Watch:
        """Ends a batch between two steps where one of it is not wanted any more, and tells how far it is."""
        layout, steps = self.maker.pipeline.layout, self.maker.generation.spec.sampler.steps
        names = {item.request: item.name for item in items}

        def on_step(step: int, *_: object) -> None:
            held.progress = min((step + 1) / steps, 1.0) * 0.95
            # Groups of ranks with different batches would ask each other at different times.
            if layout.data_ranks == 1 and layout.ranks.any(held.is_broken or bool(self.stop_requested())):
                raise GivenUp

        def on_preview(preview: Preview) -> None:
            if layout.leads:
                folder = self.out / PREVIEWS
                folder.mkdir(parents=True, exist_ok=True)
                write_strip(folder / f"{names[preview.request]}.png", preview.frames)

        asked = self.maker.generation.spec.runtime.preview_every is not None
        return Watch(on_step=on_step, on_preview=on_preview if asked else None)


def work(spec: InferSpec, options: RunOptions, out: Path, lease: float, until_empty: bool) -> None:
    """Makes what the queue of a runs folder asks of a spec, until a signal asks to stop.

    What is under way then is handed back. Under torchrun every rank makes the call.

    Args:
        spec: What is carried out.
        options: Where runs, their queue and locations are looked up.
        out: Gets a folder for each job.
        lease: For so many seconds a killed worker's job waits for another worker.
        until_empty: Whether to end where nothing waits.

    Raises:
        UserError: The spec can't be carried out, or the queue can't be used.
    """
    with laid_out(spec) as layout, stop_requests() as stop_requested:
        queue = open_queue(options.runs_dir)
        maker = open_maker(spec, options, None, layout)
        worker = Worker(maker, queue, out, lease, stop_requested)
        say(f"waits for videos to make with spec {spec_hash(spec)[:12]}, into {out}")
        while not layout.ranks.any(bool(stop_requested())):
            if not worker.turn():
                if until_empty:
                    return
                time.sleep(POLL_SECONDS)


def _made_already(folder: Path, made_of: str) -> dict[str, Any] | None:
    """What a worker has made that was lost before it could say so; None where it has not."""
    try:
        return _told(folder) if read_item(folder)["made_of"] == made_of else None
    except UserError:
        return None


def _told(folder: Path) -> dict[str, Any]:
    result = read_item(folder)
    return {"folder": str(folder.absolute()), "made_of": result["made_of"], "seconds": result["seconds"]}
