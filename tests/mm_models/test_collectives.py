"""What ranks tell each other: JSON of any length, and a failure of the first."""

import errno
from collections.abc import Callable

import pytest

from mm_models.collectives import gather_json, rank_and_world_size, write_on_first


def test_one_process_hears_itself() -> None:
    assert rank_and_world_size() == (0, 1)
    assert gather_json({"a": [1, None, "ä"]}) == [{"a": [1, None, "ä"]}]


def _gather(rank: int) -> None:
    assert rank_and_world_size() == (rank, 2)
    values = ["ä" * 1000, None]
    assert gather_json(values[rank]) == values


def test_every_rank_hears_all_values_whatever_their_length(run_ranks: Callable[..., None]) -> None:
    run_ranks(_gather)


def _write(rank: int) -> None:
    written = []
    write_on_first(lambda: written.append(rank))
    assert written == ([0] if rank == 0 else [])
    full = OSError(errno.ENOSPC, "No space left on device", "/data/state.json")

    def fail() -> None:
        raise full

    with pytest.raises(OSError, match="No space left on device") as caught:
        write_on_first(fail)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/data/state.json")


def test_a_failed_write_on_rank_0_fails_every_rank(run_ranks: Callable[..., None]) -> None:
    run_ranks(_write)
