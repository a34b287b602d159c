"""The forked ranks, their clips, and what one process makes of them."""

from collections.abc import Callable, Iterator

import pytest
import torch

from mm_config.options.run_options import RunOptions
from tests.mm_train.kept_features import prepared
from tests.mm_train.layouts.carrying_out import Gradients, Place, carry_out
from tests.mm_train.layouts.cells import RANKS, Cell
from tests.mm_train.layouts.comparing import differences
from tests.mm_train.layouts.mistakes import planted
from tests.mm_train.layouts.one_process import expected
from tests.mm_train.layouts.pool import Pool
from tests.tiny_clip import write_clip

Held = Callable[..., list[str]]


@pytest.fixture(scope="session")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    """Carries out a cell, with a mistake planted where one is named, and says in what it differs from one
    process."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("layouts")
    torch.manual_seed(0)
    write_clip(folder / "clip", layers=2)
    spec = Cell("fsdp", "none", 1, False, "text", (3, 1, 1)).spec
    place = Place(prepared(spec, RunOptions(runs_dir=folder / "runs")), folder / "clip")

    def work(order: tuple[Cell, str | None]) -> Gradients:
        cell, mistake = order
        with planted(mistake, cell):
            return carry_out(place, cell)

    pool = Pool(work, folder, RANKS)

    def hold(cell: Cell, mistake: str | None = None) -> list[str]:
        alone = expected(place, cell)  # Before the fork, which then has all that this imports.
        return differences(pool.ask((cell, mistake)), alone)

    yield hold
    pool.close()
