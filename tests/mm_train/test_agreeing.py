"""Ranks that were started with different packages, data or folders: refused in lines, with nothing made."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import attrs

from mm_config.options.run_options import RunOptions
from mm_config.specs.train import TrainSpec
from mm_models.ranks import agreeing
from mm_train import preparing
from tests.mm_train.relaunched import launched


def refused(
    spec: TrainSpec, runs_dir: Path, folder: Path, before: Callable[[int], object], ranks: int = 2
) -> list[str]:
    """What ranks say that refuse; none of them makes a run."""
    with launched(spec, folder, "--runs-dir", runs_dir, ranks=ranks, before=before) as children:
        ended = [child.end() for child in children]
    print(ended[0][2])
    assert [status for status, _, _ in ended] == [2] * ranks
    assert [errors for _, _, errors in ended[1:]] == [""] * (ranks - 1)
    assert not (runs_dir / str(spec.name)).exists()
    return ended[0][2].splitlines()


def test_other_versions_are_named_with_their_ranks(
    small: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    def older(rank: int) -> None:
        agreeing.platform.python_version = lambda: "3.11.9" if rank == 1 else "3.11.8"
        known = agreeing.distribution

        def found(name: str) -> object:
            if rank and name == "xxhash":
                raise agreeing.PackageNotFoundError
            package = known(name)
            return attrs.make_class("Package", ["version", "requires"])(
                f"1.{rank}" if name == "torch" else package.version, package.requires
            )

        agreeing.distribution = found  # type: ignore[assignment]

    here = importlib.metadata.version("xxhash")
    assert refused(small, options.runs_dir, tmp_path, older) == [
        "python: differs between ranks: 3.11.8 on rank 0, 3.11.9 on rank 1",
        "torch: differs between ranks: 1.0 on rank 0, 1.1 on rank 1",
        f"xxhash: differs between ranks: {here} on rank 0, not installed on rank 1",
    ]


def test_versions_are_those_of_what_is_needed() -> None:
    found = agreeing.versions()
    assert {"python", "mm-train", "mm-infer", "mm-models", "mm-data", "mm-config"} <= found.keys()
    assert {name: found[name] for name in ("torch", "xxhash", "safetensors", "numpy")} == {
        name: importlib.metadata.version(name) for name in ("torch", "xxhash", "safetensors", "numpy")
    }
    assert "pytest" not in found


def test_another_list_of_clips_is_named(small: TrainSpec, options: RunOptions, tmp_path: Path) -> None:
    def other(rank: int) -> None:
        prepare = preparing.mm_data.prepare

        def prepared(*arguments: object, **more: object) -> object:
            dataset = prepare(*arguments, **more)  # type: ignore[arg-type]
            return attrs.evolve(dataset, order_key=f"{rank}" * 64)

        preparing.mm_data.prepare = prepared  # type: ignore[assignment]

    assert refused(small, options.runs_dir, tmp_path, other) == [
        "spec.data.dataset: differs between ranks: 32 clips, 000000000000 on rank 0, "
        "32 clips, 111111111111 on rank 1"
    ]


def test_a_folder_of_runs_that_ranks_do_not_share_is_refused(small: TrainSpec, tmp_path: Path) -> None:
    def elsewhere(rank: int) -> None:
        agreeing._SEEN_SECONDS = 0.1
        if rank:
            (tmp_path / f"{rank}").mkdir()
            agreeing.os.chdir(tmp_path / f"{rank}")
        else:
            agreeing.os.chdir(tmp_path)

    (said,) = refused(small, Path("its-runs"), tmp_path, elsewhere, ranks=4)
    assert said == (
        f"--runs-dir: ranks 1-3 can't see what rank 0 writes into {tmp_path / 'its-runs'}; "
        "all ranks need one folder on a shared file system"
    )
    assert [*(tmp_path / "its-runs").glob("*/*/spec.json"), *(tmp_path / "its-runs").glob(".shared*")] == []


def test_ranks_are_told_as_ranges() -> None:
    assert agreeing._ranks([3]) == "rank 3"
    assert agreeing._ranks([0, 1, 2, 5, 8, 9]) == "ranks 0-2, 5, 8-9"
