"""Links among the checkpoints of a run are none of them: said, kept, and never followed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import torch

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.train import TrainSpec
from mm_models import checkpoint
from tests.mm_train.test_resuming import content_of

Losses = Callable[[Path], list[float]]
STEP = "step-00000003"
SLOW = ("another step", "nowhere", "a device")


@pytest.mark.parametrize(
    "where", ["outside", "itself", *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)]
)
def test_a_link_in_a_checkpoint_s_place_is_passed_over(
    where: str,
    small: TrainSpec,
    options: RunOptions,
    losses_of: Losses,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The one outside is the run's own, intact and of that step: nothing but the link speaks against it."""
    spec = replace(small, {"schedule.steps": 3, "schedule.warmup_steps": 1, "checkpoint.every_steps": 1})
    done = mm_train.train(spec, options)
    expected, link = losses_of(done.run_dir), done.checkpoint
    outside = tmp_path / STEP
    shutil.move(link, outside)
    targets = {"another step": "step-00000002", "outside": outside, "nowhere": "gone", "itself": STEP}
    link.symlink_to(targets.get(where, "/dev/zero"))
    staged = link.with_name(f"{STEP}.tmp")
    staged.symlink_to(outside if where == "outside" else "gone")
    before = content_of(outside)
    with pytest.raises(UserError, match="it is a link, which is not followed"):
        checkpoint.require_group(link, "model")
    capsys.readouterr()
    again = mm_train.train(spec, attrs.evolve(options, resume=str(done.run_dir)))
    said = capsys.readouterr().out
    assert f"passed over {link}: it is a link, which is not followed; it is kept as {STEP}.damaged\n" in said
    assert link.with_name(f"{STEP}.damaged").is_symlink() and not link.is_symlink()
    assert not staged.is_symlink()
    assert checkpoint.verify(again.checkpoint) == []
    assert losses_of(done.run_dir) == expected
    assert content_of(outside) == before


def test_a_link_to_a_checkpoint_of_no_run_is_a_person_s_own(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "step-00000001", {"model": {"w": torch.zeros(2)}}, {"step": 1})
    (tmp_path / "best").symlink_to("step-00000001")
    assert checkpoint.verify(tmp_path / "best") == []
