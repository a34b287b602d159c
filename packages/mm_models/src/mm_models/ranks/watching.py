"""Finds out which rank the others wait for: each says from a thread of its own where it is.

A collective that runs into its time-out knows that a rank is missing, but not which. So every rank writes now
and then into the store of the process group at what step it is and where its main thread stands. A rank whose
wait fails reads what all have written: one that has fallen silent is stopped or gone, one that is not in a
collective is what the others wait for. Then each rank writes where all of its threads stand into the run
folder; for one that is silent, the rank that names it writes what it said last.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import attrs
import torch.distributed as dist

from mm_config.runs import Run
from mm_config.schema import Failure

_SAYS = ("Timed out", "timed out", "timeout", "Connection closed by peer", "Connection reset by peer")
"""What the errors of gloo, NCCL and HCCL say where a rank is missing."""
_WAITING = (f"{os.sep}torch{os.sep}distributed{os.sep}",)
"""Where the main thread stands in a collective, as a part of a file's path."""
_FAILED = "failed"
_READING_SECONDS = 0.8
"""The store may be on a rank that is stopped."""


@attrs.define
class Watch:
    """What a rank says of itself, and how it learns of the others."""

    rank: int
    """This process's place."""
    world_size: int
    """Processes of the run."""
    timeout: timedelta
    """Longest wait of a rank for the others."""
    store: Any
    """As `own_store` gives it."""
    step: int = 0
    """Steps that are done."""
    stacks: Path | None = None
    """Folder of the run in which ranks say where they stand when one is missing; None before there is one."""
    written: bool = False
    """Whether this rank has said it."""

    @property
    def period(self) -> float:
        """Seconds between two words."""
        return min(1.0, self.timeout.total_seconds() / 10)

    def speak(self, main: int, ended: threading.Event) -> None:
        """Says where the thread `main` stands until told to end; ends the process where a rank gave up."""
        with suppress(dist.DistError):
            moved, step = time.time(), self.step
            while not ended.is_set():
                places, now = _places(sys._current_frames().get(main)), time.time()
                if self.step != step or any(part in place for place in places for part in _WAITING):
                    moved, step = now, self.step
                word = {"at": now, "still": now - moved, "step": step, "places": places}
                self.store.set(str(self.rank), json.dumps(word))
                if self.store.check([_FAILED]):
                    self.write(_stacks())
                    if not ended.wait(2 * self.period):
                        os._exit(1)
                ended.wait(self.period)

    def write(self, lines: Iterable[str], rank: int | None = None) -> None:
        """Writes where this rank stands, once, or what is known of another one."""
        if self.stacks is None or (rank is None and self.written):
            return
        self.written = self.written or rank is None
        head = [] if rank is not None else [f"rank {self.rank}, after step {self.step}"]
        with suppress(OSError):
            self.stacks.mkdir(exist_ok=True)
            file = self.stacks / f"rank-{self.rank if rank is None else rank}.txt"
            file.write_text("\n".join([*head, *lines, ""]), "utf-8")

    def words(self) -> Mapping[int, dict[str, Any]]:
        """What each rank said last."""
        keys = [str(rank) for rank in range(self.world_size)]
        said = self.store.multi_get(keys) if self.store.check(keys) else []
        return {rank: json.loads(word) for rank, word in enumerate(said)}


def own_store(key: str) -> Any:
    """A connection of its own to the store of the process group: nobody waits for the other's answer.

    Args:
        key: Drawn by the ranks together: a launcher that starts its ranks again keeps its store.
    """
    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
    )
    return dist.PrefixStore(f"mm_watch/{key}", store)  # type: ignore[attr-defined]


@contextmanager
def speaking(watch: Watch) -> Generator[Watch]:
    """Says in the block where this rank is."""
    ended = threading.Event()
    main = threading.get_ident()
    thread = threading.Thread(target=watch.speak, args=(main, ended), name="watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join(_READING_SECONDS)


@contextmanager
def naming(watch: Watch, run: Run | None = None) -> Generator[None]:
    """Makes a wait that fails in the block an error that names the rank, and keeps where all ranks were.

    Raises:
        Failure: Another rank is stopped, gone or stuck. One of those that wait says it; the others are mute.
    """
    if run is not None:
        watch.stacks = run.path / "stacks"
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, Failure) or not any(word in str(error) for word in _SAYS):
            raise
        watch.write(_stacks(error))
        raise Failure(_found(watch, run, str(error))) from error


def _found(watch: Watch, run: Run | None, said: str) -> str:
    """Which rank is missing, in a line; empty where another rank says it."""
    answers: list[Mapping[int, dict[str, Any]]] = []

    def ask() -> None:
        with suppress(dist.DistError):
            answers.append(watch.words())

    reader = threading.Thread(target=ask, daemon=True)
    reader.start()
    reader.join(_READING_SECONDS)
    if not answers:
        return f"rank {watch.rank} waited in vain, and the store does not answer: rank 0 may be missing"
    words = answers[0]
    now = time.time()
    ages = {rank: now - word["at"] for rank, word in words.items()}
    most = watch.timeout.total_seconds() / 2
    silent = [rank for rank, age in ages.items() if age > most]
    stuck = [rank for rank, word in words.items() if word["still"] > most and rank not in silent]
    with suppress(dist.DistError):
        watch.store.set(_FAILED, "")
    where = "" if run is None else f"; where all were is in {run.path / 'stacks'}"
    advice = "" if run is None else f"; to go on, add --resume {run.path}"
    if not silent and not stuck:
        return f"a rank is missing ({next(word for word in _SAYS if word in said)}){where}{advice}"
    if watch.rank != min(set(words) - {*silent, *stuck}, default=watch.rank):
        return ""
    for rank in silent:
        last = f"rank {rank}, {ages[rank]:.1f} s ago, after step {words[rank]['step']}"
        why = "It has fallen silent, as one that is stopped, and can't write where it stands. It said last:"
        watch.write([last, why, *words[rank]["places"]], rank)
    told = [f"rank {rank} was last heard {ages[rank]:.1f} s ago, {_at(words[rank])}" for rank in silent]
    told += [f"rank {rank} hangs, {_at(words[rank])}" for rank in stuck]
    return ", ".join(told) + where + advice


def _at(word: dict[str, Any]) -> str:
    """The place of a rank that a person looks for: the innermost outside of torch."""
    place = next((place for place in word["places"] if f"{os.sep}torch{os.sep}" not in place), "nowhere")
    return f"after step {word['step']} at {place}"


def _stacks(error: BaseException | None = None) -> list[str]:
    """Where each thread stands, the innermost place first; for the main thread, where an error arose."""
    frames = sys._current_frames()
    lines: list[str] = []
    for thread in threading.enumerate():
        places = _places(frames.get(thread.ident or 0))
        if error is not None and thread is threading.main_thread():
            found = reversed(traceback.extract_tb(error.__traceback__))
            places = [f"{place.filename}:{place.lineno} in {place.name}" for place in found]
        lines += [f"thread {thread.name}", *places]
    return lines


def _places(frame: FrameType | None) -> list[str]:
    """The file, line and function of each frame, the innermost first."""
    places: list[str] = []
    while frame is not None:
        places.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
        frame = frame.f_back
    return places
