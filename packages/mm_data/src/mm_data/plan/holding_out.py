"""Which clips are held out of training: it follows from each clip's file and the seed, from nothing else."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from mm_config.schema import Problem, UserError
from mm_data.index.table import IndexedRecords
from mm_data.plan.sizing import uniform
from mm_data.records import Dataset

CHUNK = 2**17
"""Files whose digests are read together."""
_HEX = 64
_NIBBLES = np.zeros(256, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def held_out(dataset: Dataset, share: float, seed: int) -> NDArray[np.bool_]:
    """`[rows]`: whether a clip is kept out of training.

    A file is held out where a uniform number below 1, a hash of its identity and the seed, is below the
    share: whatever else there is, in whatever order. So it stays held out when clips are added or when the
    share grows, and all pieces of it go together. The identity is the sha256 of its bytes in an index; where
    a manifest lists it, its path below the manifest's folder.

    Args:
        dataset: One that is no mixture.
        share: Of the files, about.
        seed: The run's.

    Raises:
        UserError: An index is damaged.
    """
    records = dataset.records
    if isinstance(records, IndexedRecords):
        of_media = uniform(_identities(records), str(seed), b"mm_data.holdout") < share
        return of_media[records.columns("media")]
    names = (dataset.name_of(index) for index in range(len(records)))
    digests = (blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest() for name in names)
    identities = np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
    return uniform(identities, str(seed), b"mm_data.holdout") < share


def _identities(records: IndexedRecords) -> NDArray[np.uint64]:
    """The first 64 bits of the sha256 of each file or part of a shard, without a Python value for each."""
    import pyarrow as pa

    column = records.media.column("sha256")
    found = np.empty(len(column), np.uint64)
    for start in range(0, len(column), CHUNK):
        some = column[start : start + CHUNK].cast(pa.binary())
        try:
            fixed = some.cast(pa.binary(_HEX)).buffers()[1]
        except pa.ArrowInvalid as error:
            raise UserError(
                Problem(str(records.folder), f"its digests are damaged: {error}"[:300])
            ) from error
        digits = _NIBBLES[np.frombuffer(fixed, np.uint8)[: len(some) * _HEX].reshape(-1, _HEX)[:, :16]]
        octets = digits[:, ::2] << 4 | digits[:, 1::2]
        found[start : start + len(some)] = octets.view(">u8").ravel()
    return found
