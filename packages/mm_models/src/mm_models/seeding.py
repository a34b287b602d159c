"""The one place that seeds: random numbers are keyed by what they are for, never by a shared stream."""

import hashlib
import json

import torch


def generator(*keys: int | str) -> torch.Generator:
    """A CPU generator keyed by what its numbers are for, such as `(seed, step, position, "noise")`.

    Equal keys give equal numbers in every process, on every device and at every number of ranks; `1`
    and `"1"` are different keys.
    """
    digest = hashlib.blake2b(json.dumps(keys).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
