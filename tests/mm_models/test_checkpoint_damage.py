"""Checkpoints that are damaged, cut short or in the way: each is found, named and passed over."""

import json
import os
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import ProcessExitedException

import mm_models
from mm_config.schema.errors import UserError
from mm_config.specs.wan import WanTransformerSpec
from mm_models import checkpoint
from mm_models.weights.converting import convert
from tests.mm_models.checkpoints import assert_same, filled, save, shard


def _flip_a_bit(folder: Path) -> str:
    file = next((folder / "model").iterdir())
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    return f"model/{file.name} has changed since it was written"


def _remove_a_file(folder: Path) -> str:
    file = next((folder / "optimizer").iterdir())
    file.unlink()
    return f"optimizer/{file.name} is missing"


def _truncate_a_file(folder: Path) -> str:
    file = next((folder / "model").iterdir())
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:100])
    return f"model/{file.name} has 100 bytes, {size} were written"


def _change_the_state(folder: Path) -> str:
    text = (folder / "state.json").read_text()
    (folder / "state.json").write_text(text.replace("700", "701"))
    return "state.json has changed since it was written"


def _add_a_file(folder: Path) -> str:
    (folder / "model" / "other.safetensors").write_bytes(b"")
    return "model/other.safetensors is not in manifest.json"


def _remove_the_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "manifest.json is missing"


def _break_the_manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text('{"files": {"state.json": 3}}')
    return "manifest.json is unreadable"


def _edit_the_manifest(folder: Path) -> str:
    content = json.loads((folder / "manifest.json").read_text())
    content["step"] = 99
    (folder / "manifest.json").write_text(json.dumps(content))
    return "manifest.json has changed since it was written"


def _lead_outside(folder: Path) -> str:
    content = {"v": 1, "files": {"../state.json": {"bytes": 1, "sha256": ""}}}
    (folder / "manifest.json").write_text(json.dumps(content))
    return "manifest.json names a file that is not here: `..` is not allowed in a path"


def _empty_the_manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text('{"files": []}')
    return "manifest.json is unreadable"


@pytest.mark.parametrize(
    "damage",
    [
        _flip_a_bit,
        _remove_a_file,
        _truncate_a_file,
        _change_the_state,
        _add_a_file,
        _remove_the_manifest,
        _break_the_manifest,
        _empty_the_manifest,
        _edit_the_manifest,
        _lead_outside,
    ],
)
def test_damage_is_found_named_and_passed_over(
    damage: Callable[[Path], str], tiny: WanTransformerSpec, tmp_path: Path
) -> None:
    network = filled(tiny)
    for step in (99, 700):
        save(tmp_path / f"step-{step:08}", network)
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000700"
    expected = damage(tmp_path / "step-00000700")
    assert checkpoint.verify(tmp_path / "step-00000700") == [expected]
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000099"


@pytest.mark.parametrize(
    "damage",
    [
        _flip_a_bit,
        _change_the_state,
        _remove_a_file,
        _truncate_a_file,
        _remove_the_manifest,
        _edit_the_manifest,
    ],
)
def test_damage_is_refused_by_loading(
    damage: Callable[[Path], str], tiny: WanTransformerSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "step-00000700"
    save(folder, filled(tiny))
    expected = damage(folder)
    with pytest.raises(UserError, match=re.escape(f"{folder}: is damaged: {expected}")):
        mm_models.load(mm_models.build(tiny, "cpu"), folder)


@pytest.fixture
def runs(tmp_path: Path, tiny: WanTransformerSpec) -> Path:
    """Two runs of one spec and one of another, each with checkpoints of two steps."""
    for uid, run, spec in (("1", "a", "s"), ("2", "b", "s"), ("3", "c", "t")):
        (tmp_path / run / "checkpoints").mkdir(parents=True)
        status = {"uid": uid * 32, "spec_hash": spec * 64}
        (tmp_path / run / "status.json").write_text(json.dumps(status))
        for step in (1, 2):
            save(tmp_path / run / "checkpoints" / f"step-{step:08}", filled(tiny))
    return tmp_path


def _without_digests_of_blocks(folder: Path) -> None:
    """Rewrites a manifest as they were before there were digests of blocks."""
    files = json.loads((folder / "manifest.json").read_text())["files"]
    old = {name: {"bytes": entry["bytes"], "sha256": entry["sha256"]} for name, entry in files.items()}
    (folder / "manifest.json").write_text(json.dumps({"v": 1, "files": old}, indent=2, sort_keys=True))


@pytest.mark.parametrize(
    ("source", "is_old", "expected"),
    [
        ("a/checkpoints/step-00000001", False, "of step 1, not of step 2"),
        ("a/checkpoints/step-00000001", True, "of step 1, not of step 2"),
        (
            "b/checkpoints/step-00000002",
            False,
            "of run 222222222222 of spec ssssssssssss, not of run 111111111111 ",
        ),
        (
            "c/checkpoints/step-00000002",
            False,
            "of run 333333333333 of spec tttttttttttt, not of run 111111111111 ",
        ),
        ("converted", False, "of no run, not of step 2"),
    ],
)
def test_a_checkpoint_of_another_step_run_or_spec_is_refused_and_replaced(
    source: str, is_old: bool, expected: str, runs: Path, tiny: WanTransformerSpec
) -> None:
    place = runs / "a" / "checkpoints" / "step-00000002"
    convert(place, runs / "converted", "dcp", spec=tiny)
    shutil.rmtree(place)
    shutil.copytree(runs / source, place)
    if is_old:
        _without_digests_of_blocks(place)
    (problem,) = checkpoint.verify(place)
    assert problem.startswith(f"it is a checkpoint {expected}")
    with pytest.raises(UserError, match=re.escape(f"{place}: is damaged: it is a checkpoint {expected}")):
        mm_models.load(mm_models.build(tiny, "cpu"), place)
    assert checkpoint.latest(place.parent) == place.with_name("step-00000001")
    save(place, filled(tiny))
    assert checkpoint.verify(place) == [] and checkpoint.latest(place.parent) == place


def test_a_part_of_a_checkpoint_is_not_taken_without_what_proves_it(
    runs: Path, tiny: WanTransformerSpec
) -> None:
    whole = runs / "a" / "checkpoints" / "step-00000002"
    for part in (whole / "model", next((whole / "model").iterdir())):
        with pytest.raises(UserError, match=re.escape(f"{part}: is a part of the checkpoint {whole}, ")):
            mm_models.load(mm_models.build(tiny, "cpu"), part)


def test_a_run_or_a_checkpoint_may_be_moved_elsewhere(runs: Path, tiny: WanTransformerSpec) -> None:
    (runs / "a").rename(runs / "moved")
    steps = runs / "moved" / "checkpoints"
    assert checkpoint.latest(steps) == steps / "step-00000002"
    shutil.copytree(steps / "step-00000002", runs / "mine")
    shutil.copytree(steps / "step-00000002", runs / "kept" / "step-00000002")
    assert checkpoint.verify(runs / "mine") == checkpoint.verify(runs / "kept" / "step-00000002") == []


def test_a_checkpoint_without_digests_of_blocks_is_checked_by_sha256(
    tiny: WanTransformerSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "step-00000700"
    save(folder, filled(tiny))
    _without_digests_of_blocks(folder)
    network = mm_models.build(tiny, "cpu")
    mm_models.load(network, folder)
    assert_same(network.state_dict(), filled(tiny).state_dict())
    expected = _flip_a_bit(folder)
    assert checkpoint.verify(folder) == [expected]
    with pytest.raises(UserError, match=re.escape(f"{folder}: is damaged: {expected}")):
        mm_models.load(network, folder)


def _die_before_the_rename(_: int, spec: WanTransformerSpec, folder: Path) -> None:
    torch.set_num_threads(1)
    Path.rename = lambda *_: os._exit(9)  # type: ignore[assignment, method-assign]
    save(folder, filled(spec))


def test_a_process_that_dies_before_the_rename_leaves_no_checkpoint(
    tiny: WanTransformerSpec, tmp_path: Path
) -> None:
    save(tmp_path / "step-00000099", filled(tiny))
    with pytest.raises(ProcessExitedException) as caught:
        mp.start_processes(  # type: ignore[attr-defined]
            _die_before_the_rename, args=(tiny, tmp_path / "step-00000700"), start_method="fork"
        )
    assert caught.value.exit_code == 9
    assert (tmp_path / "step-00000700.tmp" / "manifest.json").is_file()
    assert not (tmp_path / "step-00000700").exists()
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000099"
    save(tmp_path / "step-00000700", filled(tiny))
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000700"
    assert not (tmp_path / "step-00000700.tmp").exists()


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tiny: WanTransformerSpec, tmp_path: Path) -> None:
    folder = tmp_path / "step-00000700"
    save(folder, filled(tiny, seed=1))
    _flip_a_bit(folder)
    save(folder, filled(tiny, seed=2))
    network = mm_models.build(tiny, "cpu")
    mm_models.load(network, folder)
    assert checkpoint.verify(folder) == []
    assert_same(network.state_dict(), filled(tiny, seed=2).state_dict())


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_intact_checkpoint_is_never_replaced(tiny: WanTransformerSpec, tmp_path: Path) -> None:
    folder = tmp_path / "step-00000700"
    save(folder, filled(tiny, seed=1))
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="an intact checkpoint is there already"):
        save(folder, filled(tiny, seed=2))
    assert contents(tmp_path) == before


def _fail_to_replace(rank: int, spec: WanTransformerSpec, folder: Path) -> None:
    with pytest.raises(FileExistsError, match="an intact checkpoint is there already"):
        save(folder, shard(filled(spec, seed=2)))


def test_what_rank_0_can_not_write_is_an_error_on_every_rank(
    tiny: WanTransformerSpec, tmp_path: Path, run_ranks: Callable[..., None]
) -> None:
    folder = tmp_path / "step-00000700"
    save(folder, filled(tiny))
    run_ranks(_fail_to_replace, tiny, folder)
    assert checkpoint.verify(folder) == []


def _save_on_a_full_disk(_: int, spec: WanTransformerSpec, folder: Path) -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    with pytest.raises(OSError, match="File too large"):
        save(folder, filled(spec))


def test_a_disk_that_takes_no_more_is_an_os_error_and_spoils_nothing(
    tiny: WanTransformerSpec, tmp_path: Path
) -> None:
    save(tmp_path / "step-00000099", filled(tiny))
    mp.start_processes(  # type: ignore[attr-defined]
        _save_on_a_full_disk, args=(tiny, tmp_path / "step-00000700"), start_method="fork"
    )
    assert not (tmp_path / "step-00000700").exists()
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000099"
