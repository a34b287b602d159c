"""What a hash, a payload and a stored file cost, for every experiment.

    python benchmarks/hashing.py

Each figure is the best of several rounds of many calls in one warm process, in milliseconds.
"""

from __future__ import annotations

import importlib
import pkgutil
import timeit
from collections.abc import Callable

import experiments
from mm_config import exact_hash, spec_hash
from mm_config.schema.identity import EXACT_ROLES, canonical_bytes
from mm_config.stored.files import dumps, from_payload, to_payload
from mm_config.stored.parsing import parse_json

ROUNDS = 60
CALLS = 3


def milliseconds(call: Callable[[], object]) -> float:
    """The best mean time of one call."""
    return min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1000


def main() -> None:
    """Prints a line per experiment."""
    print(
        f"{'experiment':24} {'bytes':>6} {'spec_hash':>10} {'exact_hash':>10} {'to_payload':>10} {'load':>10}"
    )
    slowest = 0.0
    for module in pkgutil.iter_modules(experiments.__path__):
        spec = importlib.import_module(f"experiments.{module.name}").SPEC
        text = dumps(spec)
        figures = (
            milliseconds(lambda spec=spec: spec_hash(spec)),
            milliseconds(lambda spec=spec: exact_hash(spec)),
            milliseconds(lambda spec=spec: to_payload(spec)),
            milliseconds(lambda text=text: from_payload(parse_json(text))),
        )
        size = len(canonical_bytes(spec, EXACT_ROLES))
        print(f"{module.name:24} {size:6} " + " ".join(f"{figure:10.3f}" for figure in figures))
        if module.name.startswith("wan"):
            slowest = max(slowest, figures[0])
    print(f"slowest spec_hash of a Wan experiment: {slowest:.3f} ms")


if __name__ == "__main__":
    main()
