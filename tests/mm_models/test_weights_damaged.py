"""Files of weights that are damaged, cut short or something else: one clear error each."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mm_models import checkpoint
from mm_models.weights.converting import convert
from tests.mm_models.refused_weights import refused
from tests.mm_models.weight_files import T2V, values, write_diffusers


def test_truncated_safetensors(tmp_path: Path) -> None:
    write_diffusers(tmp_path / "d", T2V)
    (file,) = (tmp_path / "d").glob("*.safetensors")
    content = file.read_bytes()
    for length in (len(content) - 8, 100, 4, 0):
        file.write_bytes(content[:length])
        message = refused(tmp_path / "d")
        assert message.startswith(f"{file.name}: can't be read: ")
        assert message.endswith("; it was cut short or is no safetensors file")


def test_folders_without_an_index_or_with_a_wrong_one(tmp_path: Path) -> None:
    write_diffusers(tmp_path / "d", T2V, "60KB")
    (index,) = (tmp_path / "d").glob("*.index.json")
    text = index.read_text()
    index.unlink()
    assert "safetensors files and no index (*.safetensors.index.json)" in refused(tmp_path / "d")
    index.write_text("<html>")
    assert "is no index of safetensors files" in refused(tmp_path / "d")
    index.unlink()
    index.mkdir()
    assert "it is a folder, no file" in refused(tmp_path / "d")
    index.rmdir()
    index.write_text(text.replace("proj_out.bias", "proj_out.other"))
    assert "lists tensors that its files do not hold: proj_out.other" in refused(tmp_path / "d")
    index.write_text(text)
    gone = sorted((tmp_path / "d").glob("*.safetensors"))[1]
    gone.unlink()
    assert f"lists files that are missing: {gone.name}; the download is not complete" in refused(
        tmp_path / "d"
    )


def test_what_is_no_weights_at_all(tmp_path: Path) -> None:
    (tmp_path / "release" / "transformer").mkdir(parents=True)
    save_file(values(T2V), tmp_path / "release" / "transformer" / "w.safetensors")
    (tmp_path / "a.ckpt").touch()
    save_file({"img_in.proj.weight": torch.ones(1)}, tmp_path / "other.safetensors")
    assert refused(tmp_path / "nowhere") == "no such file or folder"
    assert (
        refused(tmp_path / "release")
        == "holds no weights that are known; those of its folders transformer may"
    )
    assert refused(tmp_path / "a.ckpt") == "expected a folder, .safetensors, its index, .pt, .pth or .bin"
    assert refused(tmp_path / "other.safetensors") == (
        "no tensor has a name of a known network (Wan's text encoder, Wan's transformer, Wan2.1's "
        "autoencoder, Wan2.2's autoencoder); it holds img_in.proj.weight"
    )


def test_of_a_run_its_newest_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    assert refused(tmp_path / "run") == "holds no weights that are known"
    for step in ("00000900", "100000000", "00000450"):
        checkpoint.save(checkpoints / f"step-{step}", {"model": values(T2V)}, {})
    checkpoint.save(tmp_path / "staged", {"model": values(T2V)}, {})
    (tmp_path / "staged").rename(checkpoints / "step-200000000.tmp")
    newest = checkpoints / "step-100000000"
    for path in (tmp_path / "run", checkpoints):
        assert refused(path) == (
            f"holds no weights that are known; name a checkpoint, the newest is {newest}"
        )


def test_folders_of_every_layout_are_advised_and_the_rest_of_many_counted(tmp_path: Path) -> None:
    marks = ("iter_0000700/mp_rank_00/", "dcp/.metadata", "ours/manifest.json", "wan/w.pth", "saved/release/")
    for mark in marks:
        (tmp_path / "some" / mark).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "some" / mark).mkdir() if mark.endswith("/") else (tmp_path / "some" / mark).touch()
    (tmp_path / "some" / "logs").mkdir()
    assert refused(tmp_path / "some") == (
        "holds no weights that are known; those of its folders dcp, iter_0000700, ours, saved, wan may"
    )
    for number in range(12):
        (tmp_path / "folders" / f"w{number:02}").mkdir(parents=True)
        (tmp_path / "folders" / f"w{number:02}" / "w.safetensors").touch()
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / f"{number:02}.pth").touch()
    assert refused(tmp_path / "folders").endswith("w08, w09 and 2 more may")
    assert refused(tmp_path / "files").endswith(
        "; name one of " + ", ".join(f"{number:02}.pth" for number in range(10)) + " and 2 more"
    )


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.safetensors.index.json"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of Git LFS"),
        ("\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "an HTML page"),
        ("<html>" + " " * 300, "an HTML page"),
    ],
)
def test_what_a_download_left_in_a_files_place_is_named(
    name: str, content: str, what: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    assert f"it is {what}, not the file itself" in refused(tmp_path / name)


@pytest.mark.parametrize("offsets", [[0], [-4, 0], ["a", "b"], [0.5, 0], 5, None])
def test_shards_that_lie_nowhere_in_their_tensor(offsets: object, tmp_path: Path) -> None:
    sharding = json.dumps({"proj_out.weight": {"saved_offsets": offsets}})
    save_file(values(T2V), tmp_path / "w.safetensors", {"DCP_SHARDING_INFO": sharding})
    assert refused(tmp_path / "w.safetensors").startswith("can't be read: ")


def test_a_damaged_checkpoint_of_ours(tmp_path: Path) -> None:
    write_diffusers(tmp_path / "d", T2V)
    convert(tmp_path / "d", tmp_path / "c", "dcp")
    file = tmp_path / "c" / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert refused(tmp_path / "c").startswith("is damaged: model/model.safetensors has ")
    assert checkpoint.verify(tmp_path / "c") != []


@pytest.mark.parametrize(
    "damage", [lambda content: content[:200], lambda content: b"", lambda content: b"\0" * 500]
)
def test_damaged_files_of_torch_save(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(values(T2V), file)
    file.write_bytes(damage(file.read_bytes()))
    assert "can't be read as tensors of torch.save" in refused(file)


def test_files_of_torch_save_without_tensors_by_name(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(torch.ones(3), file)
    assert refused(file) == "holds no tensors by name, but one Tensor"
    torch.save([values(T2V)], file)
    assert refused(file) == "holds no tensors by name, but one list"
    torch.save({"proj_out": {"bias": torch.ones(16)}, "proj_out.bias": torch.zeros(16)}, file)
    assert refused(file) == "holds proj_out.bias twice"
    itself: dict[str, object] = dict(values(T2V))
    itself["model"] = itself
    torch.save(itself, file)
    assert refused(file) == "holds dictionaries in each other more than 20 deep"


@pytest.mark.parametrize("word", ["9" * 5000, "../../etc", "iter_0000700", "-1", ""])
def test_a_tracker_that_names_no_iteration(word: str, tmp_path: Path) -> None:
    (tmp_path / "release" / "mp_rank_00").mkdir(parents=True)
    torch.save({"model": values(T2V)}, tmp_path / "release" / "mp_rank_00" / "model_optim_rng.pt")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text(word)
    assert f"expected 'release' or the number of an iteration, got '{word[:40]}'" in refused(tmp_path)


def test_many_missing_stages_are_one_problem(tmp_path: Path) -> None:
    folder = tmp_path / "release" / "mp_rank_00_099"
    folder.mkdir(parents=True)
    torch.save({"model": values(T2V)}, folder / "model_optim_rng.pt")
    assert refused(tmp_path).endswith(
        "has no part of pipeline stage 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 89 more"
    )
