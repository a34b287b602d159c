"""The order of samples: a pure function of (digest, seed, epoch, step) in O(1) memory.

Sample number `n = step * batch_size + position` belongs to epoch `n // num_records`; each epoch visits
every record once, in an order of its own, so batches run on across the border of two epochs.

An epoch's order is a Feistel network over mixed radices (Black and Rogaway, "Ciphers with Arbitrary Finite
Domains", 2002): an index is split into `left < a` and `right < b` with `a * b >= num_records`; each round
adds a keyed mix of one half to the other, which is a bijection; values that fall outside of the records are
sent through again (cycle walking), which leaves a bijection on the records.
"""

from __future__ import annotations

import math
from functools import lru_cache
from hashlib import blake2b

ROUNDS = 8
_MASK = (1 << 64) - 1


def batch_indices(digest: str, seed: int, step: int, batch_size: int, num_records: int) -> tuple[int, ...]:
    """The records of one global batch, by their index in the dataset.

    Args:
        digest: The dataset's digest.
        seed: The run's seed.
        step: Optimizer step, from 0.
        batch_size: Samples per step over all ranks.
        num_records: Records in the dataset.
    """
    first = step * batch_size
    return tuple(index_of(digest, seed, first + place, num_records) for place in range(batch_size))


def index_of(digest: str, seed: int, number: int, num_records: int, attempt: int = 0) -> int:
    """The record of sample `number`, counted from the start of training.

    Args:
        attempt: 0 for the planned record; `k` for the record `k` places on in the same epoch's order (the
            first follows the last), which stands in where the records before it can't be read.
    """
    epoch, place = divmod(number, num_records)
    return permuted((place + attempt) % num_records, num_records, epoch_keys(digest, seed, epoch))


def in_blocks(index: int, size: int, block: int, digest: str, seed: int, epoch: int) -> int:
    """Where one epoch's order sends `index`, of which few blocks of neighbours are open at a time.

    Full blocks come in an order of their own, and so do the `block` records inside each. The last records,
    where they fill no block, come between two blocks or at an end.

    Args:
        index: Place in the epoch, from 0.
        size: Records in an epoch.
        block: Records in a block.
    """
    full, rest = divmod(size, block)
    keys = epoch_keys(digest, seed, epoch)
    start_of_rest = keys[0] % (full + 1) * block
    if start_of_rest <= index < start_of_rest + rest:
        inner = epoch_keys(f"{digest}/block {full}", seed, epoch)
        return full * block + permuted(index - start_of_rest, rest, inner)
    which, inside = divmod(index - rest if index >= start_of_rest else index, block)
    chosen = permuted(which, full, keys)
    inner = epoch_keys(f"{digest}/block {chosen}", seed, epoch)
    return chosen * block + permuted(inside, block, inner)


@lru_cache(maxsize=1024)
def epoch_keys(digest: str, seed: int, epoch: int) -> tuple[int, ...]:
    """The 64-bit key of each round in one epoch."""
    material = blake2b(f"{digest}/{seed}/{epoch}".encode(), digest_size=8 * ROUNDS, person=b"mm_data.order")
    key_bytes = material.digest()
    return tuple(int.from_bytes(key_bytes[8 * i : 8 * i + 8], "little") for i in range(ROUNDS))


def permuted(index: int, size: int, keys: tuple[int, ...]) -> int:
    """Where a permutation of `range(size)`, chosen by the keys, sends `index`."""
    left_size = math.isqrt(size - 1) + 1
    right_size = -(-size // left_size)
    while True:
        left, right = divmod(index, right_size)
        for even_key, odd_key in zip(keys[::2], keys[1::2], strict=True):
            left = (left + _mix(right ^ even_key)) % left_size
            right = (right + _mix(left ^ odd_key)) % right_size
        index = left * right_size + right
        if index < size:
            return index


def _mix(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit depends on every bit."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
