"""Clips and captions encoded some steps ahead, by encoders that rest in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import torch
from torch import nn

import mm_train
from mm_config import replace
from mm_config.options import StoppedEarly
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.data import Cache
from mm_config.specs.train import TrainSpec
from mm_data import Batch, Shape
from mm_train import sources
from mm_train.ahead import Ahead
from mm_train.offloading import Resting
from mm_train.sources import Samples, Source

Losses = Callable[[Path], list[float]]


@pytest.fixture
def encoding(small: TrainSpec) -> TrainSpec:
    """Encodes clips as they come and drops half of the captions; two micro-batches a step."""
    changes = {
        "data.batch_size": 4,
        "data.cache": Cache.NONE,
        "data.caption_dropout": 0.5,
        "runtime.micro_batch_size": 2,
        "schedule.steps": 4,
        "schedule.warmup_steps": 1,
        "checkpoint.every_steps": 1,
    }
    return replace(small, changes)


def test_losses_are_the_same_however_far_is_encoded_ahead_and_across_a_stop(
    encoding: TrainSpec, options: RunOptions, losses_of: Losses
) -> None:
    expected = losses_of(mm_train.train(encoding, options).run_dir)
    assert len(set(expected)) == 4
    ahead = replace(encoding, {"name": "ahead", "runtime.encode_ahead": 3, "runtime.offload_encoders": True})
    with pytest.raises(StoppedEarly):
        mm_train.train(ahead, attrs.evolve(options, stop_after=2))
    resumed = attrs.evolve(options, resume="latest")
    result = mm_train.train(replace(ahead, "runtime.encode_ahead", 2), resumed)
    assert losses_of(result.run_dir) == expected


def batch(step: int) -> Batch:
    shape = Shape(num_frames=1, height=8, width=8)
    return Batch(step, tuple(range(5)), tuple(range(5)), tuple("abcde"), shape, size=5)


class Batches:
    """A stream that fails at a step."""

    def __init__(self, fails_at: int, end: int) -> None:
        self.step, self.fails_at, self.end = 0, fails_at, end

    def __next__(self) -> Batch:
        if self.step == self.end:
            raise StopIteration
        if self.step == self.fails_at:
            raise UserError("too many clips are bad")
        self.step += 1
        return batch(self.step - 1)

    def state(self) -> dict[str, int]:
        return {"step": self.step}

    def waiting(self) -> list[str]:
        return ["next"]


@pytest.fixture
def encoded() -> list[list[str]]:
    """The items of each call of the encoders."""
    return []


@pytest.fixture
def ahead_of(small: TrainSpec, encoded: list[list[str]]) -> Callable[[Batches, int], Ahead]:
    def collate(items: Any, _: Any) -> Samples:
        encoded.append(list(items))
        return Samples(torch.tensor(float(len(encoded))), torch.zeros(1))

    source = Source(load=None, workers=None, collate=collate)
    spec = replace(small, "runtime.micro_batch_size", 2)
    clock = SimpleNamespace(mark=lambda _: None)
    training = SimpleNamespace(spec=spec, source=source, encoders=Resting(()), clock=clock)
    return lambda batches, steps: Ahead(cast(Any, training), cast(Any, batches), steps)


def test_steps_are_encoded_together_by_their_micro_batches_and_the_state_is_that_of_the_step(
    ahead_of: Callable[[Batches, int], Ahead], encoded: list[list[str]]
) -> None:
    ahead = ahead_of(Batches(fails_at=-1, end=5), 3)
    assert ahead.state() == {"step": 0} and ahead.waiting() == ["next"]
    done, states, waiting = [], [], []
    while (given := next(ahead, None)) is not None:
        done.append((given.step, len(encoded), [one.samples.latents_BCTHW.item() for one in given.items]))
        states.append(ahead.state()["step"])
        waiting.append(ahead.waiting())
    of_a_step = [["a", "b"], ["c", "d"], ["e"]]
    assert encoded == of_a_step * 5
    first = [1.0, 1.0, 2.0, 2.0, 3.0]
    assert [one[2] for one in done] == [[3 * step + place for place in first] for step in range(5)]
    assert [one[:2] for one in done] == [(0, 9), (1, 9), (2, 9), (3, 15), (4, 15)]
    assert states == [1, 2, 3, 4, 5]
    assert waiting == [[], [], ["next"], [], []]


def test_an_error_of_the_stream_is_raised_at_its_own_step(
    ahead_of: Callable[[Batches, int], Ahead],
) -> None:
    ahead = ahead_of(Batches(fails_at=2, end=9), 4)
    assert [next(ahead).step, next(ahead).step] == [0, 1]
    assert ahead.state() == {"step": 2}
    with pytest.raises(UserError, match="too many clips"):
        next(ahead)


def test_no_encoder_is_built_whose_features_are_looked_up(
    small: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(small, {"data.cache": Cache.LATENTS, "schedule.steps": 1, "schedule.warmup_steps": 0})
    built: list[str] = []

    def note(name: str) -> None:
        build = getattr(sources, name)
        monkeypatch.setattr(sources, name, lambda *given: built.append(name) or build(*given))

    note("build_autoencoder")
    note("build_text_encoder")
    mm_train.train(replace(spec, "name", "looked_up"), options)
    assert built == []
    mm_train.train(replace(spec, {"name": "encoded", "data.cache": Cache.NONE}), options)
    assert built == ["build_text_encoder", "build_autoencoder"]


@pytest.fixture
def encoder() -> Iterator[Any]:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).requires_grad_(False).eval()
    yield SimpleNamespace(network=network, spec="of no use")


def test_encoders_that_rest_are_the_same_when_they_are_awake(encoder: Any) -> None:
    x = torch.rand(2, 3)
    expected, before = encoder.network(x), encoder.network[0].weight.data_ptr()
    resting = Resting((encoder,))
    assert encoder.network[0].weight.data_ptr() != before
    for _ in range(2):
        with resting.awake():
            assert torch.equal(encoder.network(x), expected)


@pytest.mark.gpu
def test_on_a_gpu_encoders_that_rest_take_no_memory_there() -> None:
    network = nn.Linear(2**12, 2**12, device="cuda").requires_grad_(False)
    x = torch.rand(2, 2**12, device="cuda")
    expected, before = network(x), torch.cuda.memory_allocated()
    resting = Resting((SimpleNamespace(network=network),))
    assert before - torch.cuda.memory_allocated() >= 4 * 2**24
    with resting.awake():
        assert torch.equal(network(x), expected)
    assert before - torch.cuda.memory_allocated() >= 4 * 2**24 and network.weight.is_pinned()
