"""Runs commands of mm with faults and prints what went wrong: `python -m tests.faults [VERB ...]`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.faults.commands import Commands
from tests.faults.judging import faults_found, kills, points, prepare
from tests.faults.verbs import VERBS


def main() -> int:
    """Returns 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "verbs", nargs="*", help=f"of {', '.join(verb.name for verb in VERBS)} (default: all)"
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="take every N-th point (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="which of alike calls are taken (default: 0)")
    parser.add_argument("--kills", type=int, metavar="N", help="kill each N times instead, at drawn calls")
    options = parser.parse_args()
    wrong = False
    with tempfile.TemporaryDirectory() as folder, Commands(Path(folder)) as commands:
        for verb in VERBS:
            if options.verbs and verb.name not in options.verbs:
                continue
            prepared = prepare(commands, verb)
            rng = random.Random(options.seed)
            taken = [
                *(points(prepared, rng) if options.kills is None else kills(prepared, rng, options.kills))
            ]
            taken = taken[:: options.every]
            kinds: Counter[str] = Counter()
            for point in taken:
                found = faults_found(commands, prepared, point)
                kinds.update({line.partition(":")[0] for line in found})
                for line in found:
                    print(f"{point}\n    {line}", flush=True)
            wrong |= bool(kinds)
            result = dict(kinds) or "nothing wrong"
            print(
                f"{verb.name}: {len(taken)} points of {sum(map(len, prepared.calls))} calls, {result}",
                flush=True,
            )
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
