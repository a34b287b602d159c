"""Checkpoints that are damaged, cut short or in the way: each is found, named and passed over."""

import os
import re
import resource
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


@pytest.mark.parametrize("damage", [_remove_a_file, _truncate_a_file, _add_a_file, _break_the_manifest])
def test_damage_that_sizes_show_is_refused_by_loading(
    damage: Callable[[Path], str], tiny: WanTransformerSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "step-00000700"
    save(folder, filled(tiny))
    expected = damage(folder)
    with pytest.raises(UserError, match=re.escape(f"{folder}: is damaged: {expected}")):
        mm_models.load(mm_models.build(tiny, "cpu"), folder)


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
