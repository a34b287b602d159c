"""Weights that are damaged, incomplete or another network's: one clear error each, and nothing is written."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import save_file

import mm_models
from mm_config.families import wan21, wan22
from mm_config.schema.errors import UserError
from mm_models import checkpoint
from mm_models.loading import check
from mm_models.weights.converting import convert
from mm_models.weights.differences import compare
from mm_models.weights.inspecting import inspect_weights
from mm_models.weights.opening import open_weights
from mm_models.weights.tensors import Piece, StoredTensor
from tests.mm_models.lora_files import adapter_of, halves, write
from tests.mm_models.weight_files import SPECS, T2V, values, write_diffusers


def refused(path: Path) -> str:
    """What opening and loading say, equally."""
    with pytest.raises(UserError) as caught:
        open_weights(path)
    with pytest.raises(UserError) as loading:
        mm_models.load(mm_models.build(T2V, "meta"), path)
    assert loading.value.problems == caught.value.problems
    assert len(caught.value.problems) == 1
    return str(caught.value).removeprefix(str(path)).lstrip(":/ ")


def does_not_fit(path: Path) -> list[str]:
    """What loading, checking and converting say, equally; nothing is filled or written."""
    network = mm_models.build(T2V, "cpu")
    with pytest.raises(UserError) as loading:
        mm_models.load(network, path)
    assert all(parameter.isnan().all() for parameter in network.parameters())
    with pytest.raises(UserError) as converting:
        convert(path, path.parent / "out", spec=T2V)
    assert not (path.parent / "out").exists()
    with pytest.raises(UserError) as checking:
        check(mm_models.build(T2V, "meta"), path)
    assert checking.value.problems == converting.value.problems == loading.value.problems
    assert {problem.path for problem in loading.value.problems} == {str(path)}
    return [problem.message for problem in loading.value.problems]


def test_missing_extra_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    tensors = values(T2V)
    tensors["blocks.1.norm2.bias"] = torch.ones(37)
    tensors["blocks.1.attn3.to_q.weight"] = torch.ones(2)
    del tensors["proj_out.bias"], tensors["blocks.0.attn1.to_q.weight"]
    save_file(tensors, tmp_path / "w.safetensors")
    assert does_not_fit(tmp_path / "w.safetensors") == [
        "2 tensors are missing: blocks.0.attn1.to_q.weight, proj_out.bias",
        "1 tensor is not wanted: blocks.1.attn3.to_q.weight",
        "1 tensor is of another shape: blocks.1.norm2.bias is (37,), (36,) is wanted",
    ]


def test_the_first_ten_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    tensors = {name: value for name, value in values(T2V).items() if not name.startswith("blocks.2.")}
    save_file(tensors, tmp_path / "w.safetensors")
    missing, cause = does_not_fit(tmp_path / "w.safetensors")
    names = [name for name in T2V.parameter_shapes() if name.startswith("blocks.2.")]
    assert missing == f"{len(names)} tensors are missing: {', '.join(names[:10])}, and {len(names) - 10} more"
    assert cause == "likely cause: these are weights of another network: num_layers 2 instead of 3"


def test_one_part_of_several_files_is_called_that(tmp_path: Path) -> None:
    first = {name: value for name, value in values(T2V).items() if name.startswith("blocks.0.")}
    save_file(first, tmp_path / "w.safetensors")
    assert does_not_fit(tmp_path / "w.safetensors")[-1] == (
        "likely cause: nothing of 2 blocks from 1 to 2 is there: this is one of several files"
    )


def test_another_familys_file_is_told_by_its_name() -> None:
    def stored(spec: attrs.AttrsInstance) -> dict[str, StoredTensor]:
        def never(*_: object) -> None:
            raise AssertionError("headers alone are compared")

        return {
            name: StoredTensor(shape, torch.bfloat16, (Piece((0,) * len(shape), shape, never),))
            for name, shape in spec.parameter_shapes().items()  # type: ignore[attr-defined]
        }

    small, large = wan22.TI2V_5B.model, wan22.T2V_A14B.model
    found = compare(stored(small), large.parameter_shapes())  # type: ignore[arg-type]
    assert len(found.misshapen) > 10
    assert found.cause is not None
    assert found.cause.startswith(
        "these are weights of wan22.TI2V_5B, the spec is wan21.T2V_14B (or wan22.T2V_A14B"
    )
    image = compare(stored(large), wan21.MODEL_I2V_14B.parameter_shapes())  # type: ignore[arg-type]
    assert image.cause is not None
    assert "the spec is wan21.I2V_14B_480P (or wan21.I2V_14B_720P)" in image.cause


def test_a_dtype_that_means_nothing_without_scales_is_refused(tmp_path: Path) -> None:
    tensors = values(T2V)
    tensors["proj_out.weight"] = tensors["proj_out.weight"].to(torch.float8_e4m3fn)
    tensors["proj_out.bias"] = tensors["proj_out.bias"].to(torch.int8)
    save_file(tensors, tmp_path / "w.safetensors")
    assert does_not_fit(tmp_path / "w.safetensors") == [
        "2 tensors are of a dtype that is not loaded (allowed: float32, bfloat16, float16): "
        "proj_out.weight is float8_e4m3fn, proj_out.bias is int8"
    ]


def test_shards_of_a_checkpoint_that_do_not_make_whole_tensors(tmp_path: Path) -> None:
    half = {"proj_out.weight": values(T2V)["proj_out.weight"][:8]}
    rest = {name: value for name, value in values(T2V).items() if name != "proj_out.weight"}
    offsets = {"proj_out.weight": {"saved_offsets": [8, 0]}}
    save_file(half, tmp_path / "half.safetensors", {"DCP_SHARDING_INFO": json.dumps(offsets)})
    save_file(rest, tmp_path / "rest.safetensors")
    index = dict.fromkeys(rest, "rest.safetensors") | {"proj_out.weight": "half.safetensors"}
    (tmp_path / "w.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    whole = math.prod(T2V.parameter_shapes()["proj_out.weight"])
    assert does_not_fit(tmp_path) == [
        f"1 tensor is not whole: proj_out.weight has {whole // 2} of {whole} values"
    ]


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
    assert "is no index of safetensors files: IsADirectoryError" in refused(tmp_path / "d")
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
    (tmp_path / "a.bin").touch()
    save_file({"img_in.proj.weight": torch.ones(1)}, tmp_path / "other.safetensors")
    assert refused(tmp_path / "nowhere") == "no such file or folder"
    assert (
        refused(tmp_path / "release")
        == "holds no weights that are known; those of its folders transformer may"
    )
    assert refused(tmp_path / "a.bin") == "expected a folder, .safetensors, its index, .pt or .pth"
    assert refused(tmp_path / "other.safetensors") == (
        "no tensor has a name of Wan's transformer; it holds img_in.proj.weight"
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


@pytest.mark.parametrize(
    ("prefix", "down", "up"), [("transformer.", "lora_A", "lora_B"), ("", "lora_down", "lora_up")]
)
def test_an_adapter_given_as_a_networks_weights_is_called_one(
    prefix: str, down: str, up: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "lora.safetensors", halves(adapter_of(), prefix, down, up))
    assert refused(file) == (
        "is an adapter (LoRA), not a network's weights; it belongs in spec.loras of a generation, "
        "or in spec.lora.start_from of a training"
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


def test_weights_that_are_not_whole_have_no_digest(tmp_path: Path) -> None:
    # A whole tensor of this shape would be as large as a petabyte: it is not even made.
    sharding = json.dumps({"proj_out.weight": {"saved_offsets": [2**40, 0]}})
    save_file(values(T2V), tmp_path / "w.safetensors", {"DCP_SHARDING_INFO": sharding})
    found = inspect_weights(tmp_path / "w.safetensors", T2V)
    assert found.digest is None
    assert "digest        none: not all tensors are whole" in found.lines()
    save_file(values(T2V), tmp_path / "w.safetensors")
    assert inspect_weights(tmp_path / "w.safetensors", T2V).digest is not None


def test_a_patch_of_no_size_tells_no_architecture(tmp_path: Path) -> None:
    tensors = values(T2V) | {"patch_embedding.weight": torch.ones(36, 4, 0, 2, 2)}
    save_file(tensors, tmp_path / "w.safetensors")
    assert inspect_weights(tmp_path / "w.safetensors").architecture is None
    assert "patch_embedding.weight is (36, 4, 0, 2, 2)" in does_not_fit(tmp_path / "w.safetensors")[0]


def test_another_number_of_heads_beside_the_weights_is_no_fit(tmp_path: Path) -> None:
    write_diffusers(tmp_path / "d", T2V)
    assert not inspect_weights(tmp_path / "d", T2V).differences
    config = json.loads((tmp_path / "d" / "config.json").read_text())
    (tmp_path / "d" / "config.json").write_text(
        json.dumps(config | {"num_attention_heads": 6, "eps": 1e-5, "rope_max_seq_len": 64})
    )
    assert does_not_fit(tmp_path / "d") == [
        "eps is 1e-05 in the configuration of the weights, 1e-06 in the spec",
        "num_attention_heads is 6 in the configuration of the weights, 3 in the spec",
    ]
    found = inspect_weights(tmp_path / "d", T2V)
    assert "  num_attention_heads is 6 in the configuration of the weights, 3 in the spec" in found.lines()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_attention_heads": 5}, "num_attention_heads: 5 heads do not divide hidden_size 36"),
        ({"num_attention_heads": "3"}, "num_attention_heads: expected int, got str '3'"),
        ({"eps": math.nan}, "eps: must be a finite number, got nan"),
        ({"num_heads": True}, "num_attention_heads: expected int, got bool True"),
    ],
)
def test_a_configuration_that_no_network_of_these_shapes_has(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    write_diffusers(tmp_path / "d", T2V)
    (tmp_path / "d" / "config.json").write_text(json.dumps(settings))
    for read in (inspect_weights, lambda path: convert(path, tmp_path / "out")):
        with pytest.raises(UserError) as caught:
            read(tmp_path / "d")
        wanted = f"{tmp_path / 'd'}: in the configuration of the weights, {message}"
        assert str(caught.value).startswith(wanted)
    with pytest.raises(UserError, match="in the configuration of the weights"):
        mm_models.load(mm_models.build(T2V, "cpu"), tmp_path / "d")


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


def test_norms_that_nothing_uses_are_left_out_and_named(tmp_path: Path) -> None:
    spec = SPECS["i2v"]
    unused = {f"blocks.{index}.attn2.norm_added_q.weight": torch.ones(36) for index in range(3)}
    save_file({**values(spec), **unused}, tmp_path / "w.safetensors")
    assert set(open_weights(tmp_path / "w.safetensors").left_out) == set(unused)
    mm_models.load(mm_models.build(spec, "cpu"), tmp_path / "w.safetensors")
