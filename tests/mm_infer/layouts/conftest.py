"""Weights of the cells, and ranks that make their videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_config.options.run_options import RunOptions
from tests.mm_infer.layouts.cells import released, requests_of, spec_of
from tests.mm_infer.layouts.making import Order, made
from tests.mm_train.layouts.pool import Pool


@pytest.fixture(scope="package")
def options_of_cells(tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    """Where the weights of all kinds are found; the folder of their images is that of its runs."""
    return released(tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="package")
def alone(options_of_cells: RunOptions) -> dict[str, Any]:
    """The videos of one process, by kind; made once each."""
    return {}


class Ranks:
    """Makes videos of a kind on ranks, and in one process."""

    def __init__(self, options: RunOptions, folder: Path, alone: dict[str, Any]) -> None:
        self.options, self._folder, self._alone = options, folder, alone
        self._pools: dict[int, Pool] = {}

    def order(self, kind: str, **asked: Any) -> Order:
        """What ranks are asked for."""
        mistake, in_parts = asked.pop("mistake", None), asked.pop("in_parts", False)
        folder = self.options.runs_dir.parent
        return Order(spec_of(kind, **asked), requests_of(kind, folder), self.options, mistake, in_parts)

    def by(self, ranks: int, order: Order) -> list[dict[str, Any]]:
        """Each rank's videos."""
        if ranks not in self._pools:
            folder = self._folder / f"{ranks}"
            folder.mkdir()
            self._pools[ranks] = Pool(made, folder, ranks)
        return self._pools[ranks].ask(order)

    def alone(self, kind: str) -> dict[str, Any]:
        """The videos of one process."""
        if kind not in self._alone:
            self._alone[kind] = made(self.order(kind))
        return self._alone[kind]

    def close(self) -> None:
        """Ends the ranks."""
        for pool in self._pools.values():
            pool.close()


@pytest.fixture(scope="module")
def ranks(
    options_of_cells: RunOptions, alone: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ranks]:
    """Ranks of two and four."""
    found = Ranks(options_of_cells, tmp_path_factory.mktemp("pools"), alone)
    yield found
    found.close()


def difference(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """The largest one between videos of values from 0 to 1; infinite where they are not as many."""
    ours, theirs = found["videos"], expected["videos"]
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else float("inf")
