"""One place in a batch filled: with the planned clip, or the next one of its bucket that can be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from mm_config.schema import Problem, UserError
from mm_data.bad import Bad, BadClip, place_of, state_of
from mm_data.plan.plan import Plan
from mm_data.records import Asked, Dataset
from mm_data.streaming.quarantine import MOST_IN_A_ROW, Quarantine
from mm_data.streaming.slots import Room, Slot

Load = Callable[[Asked], Any]


@attrs.define(eq=False)
class Filled:
    """A filled slot: the item, or the error that is no clip's fault, and the bad clips met on the way."""

    slot: Slot
    """The place."""
    index: int
    """Of the record in the dataset, after bad clips were substituted."""
    item: Any
    """What `load` returned; None where nothing could be loaded."""
    bad: tuple[Bad, ...]
    """Clips found bad on the way."""
    error: Exception | None = None
    """What `load` raised, if it was no BadClip; or that no clip could be read."""

    def taken(self) -> Any:
        """The item, which is forgotten here: torchdata's threads keep what they returned until they return
        again, each a clip beyond all bounds."""
        item, self.item = self.item, None
        return item


@attrs.frozen
class Filler:
    """Fills slots; called from several threads. It never raises: see `Stream`."""

    plan: Plan
    """Whose slots they are."""
    dataset: Dataset
    """The clips."""
    load: Load
    """Makes an item."""
    quarantine: Quarantine
    """Clips that are not tried."""
    loading: dict[Slot, str]
    """What each thread has at hand, for messages."""
    room: Room
    """How many load at a time."""

    def __call__(self, slot: Slot) -> Filled:
        with self.room.turn(slot) as wanted:
            if not wanted:
                return Filled(slot, -1, None, ())
            bad: list[Bad] = []
            try:
                return self._fill(slot, bad)
            except Exception as error:  # Such as that of a damaged index.
                return Filled(slot, -1, None, tuple(bad), error)
            except BaseException as error:  # A panic of a library in Rust ends no thread that is waited for.
                return Filled(slot, -1, None, tuple(bad), RuntimeError(f"{type(error).__name__}: {error}"))

    def _fill(self, slot: Slot, bad: list[Bad]) -> Filled:
        index = -1
        for attempt in range(self.plan.attempts(slot.step, slot.position)):
            sample = self.plan.slot(slot.step, slot.position, attempt)
            index = sample.index
            if index in self.quarantine.clips:
                continue
            record = self.dataset.records[index]
            self.loading[slot] = place_of(record)
            state = state_of(record)
            try:
                item = self.load(Asked(record, index, slot.shape, sample.draw))
                return Filled(slot, index, item, tuple(bad))
            except BadClip as problem:
                bad.append(Bad(index, place_of(record), problem.stage, problem.reason, state))
                if len(bad) > self.quarantine.allowed or len(bad) == MOST_IN_A_ROW:
                    break
            except Exception as error:
                return Filled(slot, index, None, tuple(bad), error)
            finally:
                del self.loading[slot]
        return Filled(slot, index, None, tuple(bad), self._nothing(slot, bad))

    def _nothing(self, slot: Slot, bad: list[Bad]) -> UserError:
        if len(bad) == MOST_IN_A_ROW:
            why = f"{bad[-1].stage}: {bad[-1].reason}; before it, {len(bad) - 1} in a row could not be read: "
            return UserError(Problem(bad[-1].path, f"{why}is the place there where they lie?"))
        clips, shape = self.plan.attempts(slot.step, slot.position), slot.shape
        size = f"{shape.num_frames}x{shape.height}x{shape.width}"
        can = "the only clip of {} can't" if clips == 1 else f"none of the {clips} clips of {{}} can"
        return UserError(Problem("spec.data", f"{can.format(size)} be read"))
