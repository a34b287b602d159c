"""Mistakes about ranks, in the layout that a spec asks for: told before anything is made.

A full disk, a folder that ranks don't share, other versions and a missing client of a scheduler are held in
`test_room.py`, `test_agreeing.py` and `test_launch.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import tiny_high
from mm_config.cli.app import app
from mm_config.cli.main import main

_HEADS = "the 4 heads of spec.model.num_attention_heads"
_PER_CLIP = "ranks per clip do not divide 4 ranks; nearest numbers of ranks:"
WRONG = {
    "--spec.parallel.ring 3": f"spec.parallel: ulysses 1 x ring 3 x tensor 1 = 3 {_PER_CLIP} 3 or 6",
    "--spec.parallel.ulysses 3 --spec.parallel.ring 4": f"spec.parallel.ulysses: 3 ranks can't share "
    f"{_HEADS}; those that can: 2, 4\nspec.parallel: ulysses 3 x ring 4 x tensor 1 = 12 {_PER_CLIP} 12",
    "--spec.parallel.tensor 8": f"spec.parallel.tensor: 8 ranks can't share {_HEADS} and "
    "spec.model.ffn_dim 512; those that can: 2, 4\n"
    f"spec.parallel: ulysses 1 x ring 1 x tensor 8 = 8 {_PER_CLIP} 8",
    "--spec.fsdp.shard-size 3": "spec.fsdp.shard_size: 3 does not divide 4 ranks; nearest: 2 or 4",
    "--spec.data.batch-size 30": "spec.data.batch_size: 30 clips do not divide over 4 ranks; "
    "nearest: 28 or 32",
    "--spec.fsdp.wrap block.*": "spec.fsdp.wrap.0: 'block.*' matches no module; nearest: 'blocks.*', "
    "'blocks', 'blocks.*.ffn'",
    "--spec.fsdp.ignore nothing.*": "spec.fsdp.ignore.0: 'nothing.*' matches no module; nearest: "
    "'patch_embedding', 'blocks.*', 'blocks.*.ffn'",
    "--world-size 8": "--world-size: is for --dry-run; a run has the ranks that torchrun starts",
}
"""What is typed, and the lines that tell why it is refused on four ranks."""


@pytest.mark.parametrize("typed", WRONG)
def test_the_first_rank_alone_tells_it_and_nothing_is_made(
    typed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank in (0, 1, 3):
        monkeypatch.setenv("RANK", str(rank))
        with pytest.raises(SystemExit) as ended:
            main(tiny_high.SPEC, ["tiny_high.py", "--runs-dir", str(tmp_path / "runs"), *typed.split()])
        assert ended.value.code == 2
        out, err = capsys.readouterr()
        assert (out, err) == ("", f"{WRONG[typed]}\n" if rank == 0 else "")
    assert list(tmp_path.iterdir()) == []


def test_one_process_names_the_ranks_that_were_not_said_beside_all_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = "--spec.parallel.ring 2 --spec.data.num-frames 8 --spec.diffusion.timesteps-per micro_batch"
    unsaid = "--world-size: is not given, so this is checked for 1 rank; say how many there will be"
    known = "spec.diffusion.timesteps_per: is micro_batch, whose size belongs to execution; say "
    common = [
        "spec.data.num_frames: 8 frames are not of the form 4k+1; nearest: 5 or 9",
        "spec.parallel: ulysses 1 x ring 2 x tensor 1 = 2 ranks per clip do not divide 1 rank; nearest "
        "numbers of ranks: 2",
    ]
    refused = known + "diffusion.clips_per_level instead"
    with pytest.raises(SystemExit) as ended:
        main(
            tiny_high.SPEC,
            ["tiny_high.py", "--dry-run", "--runs-dir", str(tmp_path / "runs"), *typed.split()],
        )
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [*common, refused, unsaid]
    assert app(["plan", "experiments/tiny_high.py", *typed.split()]) == 2
    assert capsys.readouterr().err.splitlines() == [*common, unsaid]
    assert list(tmp_path.iterdir()) == []
