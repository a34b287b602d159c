"""Batches whose clips and captions are encoded before their steps, those of several steps at once."""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs

from mm_data import Batch, Quarantine, Stream
from mm_train.gradients import micro_batches
from mm_train.noise import dropped_captions
from mm_train.sources import Encoded
from mm_train.work import Training


def encoded_ahead(training: Training, batches: Stream) -> Stream | Ahead:
    """The batches as they are, or encoded ahead where the spec asks for it."""
    runtime = training.spec.runtime
    if runtime.encode_ahead == 1 and not runtime.offload_encoders:
        return batches
    return Ahead(training, batches, runtime.encode_ahead)


class Ahead:
    """Batches of a stream, encoded some steps at once, in the micro-batches that a step is trained on.

    The state is that of the stream after the batch that was given last, whatever waits behind it. An error of
    the stream is raised at the step that it belongs to.
    """

    def __init__(self, training: Training, batches: Stream, steps: int) -> None:
        self._training, self._batches, self._steps = training, batches, steps
        self._waiting: deque[tuple[Batch | Exception, dict[str, Any]]] = deque()
        self._state = batches.state()

    @property
    def quarantine(self) -> Quarantine:
        """The bad clips met so far, those of batches that wait included."""
        return self._batches.quarantine

    def __next__(self) -> Batch:
        if not self._waiting:
            self._take()
        batch, self._state = self._waiting.popleft()
        if isinstance(batch, Exception):
            raise batch
        return batch

    def state(self) -> dict[str, Any]:
        """What resuming needs."""
        return self._state

    def waiting(self) -> list[Any]:
        """Items that are encoded next and have arrived already."""
        return [] if self._waiting else self._batches.waiting()

    def _take(self) -> None:
        """Takes batches up to the end of the stream, which is an exception as well."""
        with self._training.encoders.awake():
            while len(self._waiting) < self._steps:
                state = self._batches.state()
                try:
                    batch = self._encoded(self._next())
                except Exception as error:
                    self._waiting.append((error, state))
                    return
                self._waiting.append((batch, self._batches.state()))

    def _next(self) -> Batch:
        """The stream's next batch; where ranks encode together, they miss it together."""
        training = self._training
        if training.spec.runtime.shard_encoders:
            return training.ranks.together(lambda: next(self._batches))
        return next(self._batches)

    def _encoded(self, batch: Batch) -> Batch:
        """The batch with what the network is given in place of its items."""
        spec, source = self._training.spec, self._training.source
        self._training.clock.mark("data")
        items: list[Encoded] = []
        for places in micro_batches(len(batch.items), spec.runtime.micro_batch_size):
            positions = [batch.positions[place] for place in places]
            dropped = dropped_captions(spec, batch.step, positions)
            samples = source.collate([batch.items[place] for place in places], dropped)
            items += [Encoded(samples)] * len(places)
        self._training.clock.mark("encode")
        return attrs.evolve(batch, items=tuple(items))
