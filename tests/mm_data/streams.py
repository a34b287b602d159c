"""Records without files, and the batches that all ranks of a stream take of them."""

from __future__ import annotations

from pathlib import Path

from mm_config.specs import DataSpec
from mm_data import Asked, Clip, Dataset, Record, ask, load_clip, stream


def plain_dataset(num_records: int) -> Dataset:
    """Records whose files are never opened: the tests' own loaders look at captions."""
    records = tuple(Record(Path(f"/nowhere/{n}.mp4"), str(n)) for n in range(num_records))
    return Dataset(Path("/nowhere"), records, "digest")


def caption_of(asked: Asked) -> str:
    return asked.record.caption


def load_record(record: Record, data: DataSpec) -> Clip:
    """A clip as a training loads it whose clips all get one size."""
    return load_clip(ask(record, data), data)


def run(data, dataset, *, world_size=1, start_step=0, end_step, **options) -> list[tuple[int, ...]]:
    """The global batches, put together from every rank's positions."""
    batches = [[-1] * data.batch_size for _ in range(start_step, end_step)]
    for rank in range(world_size):
        with stream(
            data,
            dataset,
            seed=5,
            rank=rank,
            world_size=world_size,
            start_step=start_step,
            end_step=end_step,
            **{"load": caption_of, **options},
        ) as batches_of_rank:
            for batch in batches_of_rank:
                for position, index in zip(batch.positions, batch.indices, strict=True):
                    batches[batch.step - start_step][position] = index
    return [tuple(batch) for batch in batches]
