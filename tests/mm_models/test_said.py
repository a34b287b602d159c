"""What files say of themselves, written here byte by byte, and a use that denies it."""

import json
from pathlib import Path

import pytest

from mm_config.schema.errors import UserError
from mm_config.specs import Expert, RandomWeights, ReleasedWeights, Weights
from mm_models.said import Use, check_said, named_otherwise

HIGH, LOW, SINGLE = Expert.HIGH_NOISE, Expert.LOW_NOISE, Expert.SINGLE
T2V = ReleasedWeights(name="Wan-AI/Wan2.2-T2V-A14B-Diffusers", subfolder="transformer")
WAY_OUT = "if it is meant nevertheless, name what mm convert makes of it, which says nothing of itself"


def adapter_use(expert: Expert = HIGH, base: Weights = T2V, boundary: float | None = 0.875) -> Use:
    return Use(expert, boundary, base=base)


def safetensors(file: Path, metadata: dict[str, str]) -> Path:
    """One number, by the format's description: the header's length in 8 bytes, the header, the values."""
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": metadata, "x": tensor}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return file


def peft(folder: Path, base: object) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return safetensors(folder / "adapter_model.safetensors", {}).parent


def refusal(path: Path, use: Use) -> str:
    with pytest.raises(UserError) as caught:
        check_said(path, use)
    (problem,) = caught.value.problems
    assert problem.path == str(path)
    return problem.message


@pytest.mark.parametrize(
    "base",
    [
        "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        "wan21",
        "/data/models/wan_2_1_t2v.safetensors",
        "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        "wan22_14b_i2v",
        "Wan-AI/Wan2.2-TI2V-5B",
        "Wan2.1-T2V-1.3B",
        "wan_t2v_1_3B_bf16.safetensors",
    ],
)
def test_an_adapter_of_another_release_is_refused(base: str, tmp_path: Path) -> None:
    assert refusal(peft(tmp_path, base), adapter_use()) == (
        f"says in adapter_config.json that it was trained on '{base}', and is added to "
        f"'Wan-AI/Wan2.2-T2V-A14B-Diffusers/transformer' here; {WAY_OUT}"
    )
    file = safetensors(tmp_path / "of_kohya.safetensors", {"ss_base_model_version": base})
    (tmp_path / "adapter_config.json").unlink()
    assert f"says in its ss_base_model_version that it was trained on '{base}'" in refusal(
        file, adapter_use()
    )


@pytest.mark.parametrize(
    "base",
    [
        None,
        7,
        "",
        "wan",
        "my/own",
        "Wan-AI/Wan2.2-T2V-A14B",
        "wan22_14b",
        "Wan2.2-T2V-A14B-Diffusers/transformer",
        "/runs/high_noise and low_noise",
    ],
)
def test_what_says_nothing_else_is_taken(base: object, tmp_path: Path) -> None:
    check_said(peft(tmp_path, base), adapter_use())


def test_an_adapter_of_a_release_is_held_against_what_is_known_of_the_network(tmp_path: Path) -> None:
    folder = peft(tmp_path, "Wan-AI/Wan2.1-T2V-14B")
    own = ReleasedWeights(name="my/high")
    assert "is added to one of Wan2.2's two experts here" in refusal(folder, adapter_use(base=own))
    check_said(folder, Use(SINGLE, None, base=own))
    check_said(folder, Use(SINGLE, None, base=RandomWeights()))
    check_said(folder, Use(HIGH, 0.875))  # A network may have begun as any other.


def test_weights_that_say_they_are_the_other_experts_are_refused(tmp_path: Path) -> None:
    low = "wan2.2_t2v_low_noise_14B_fp16.safetensors"
    file = safetensors(tmp_path / "lora.safetensors", {"ss_sd_model_name": low})
    check_said(file, adapter_use(LOW))
    for use in (adapter_use(HIGH), Use(HIGH, 0.875)):
        assert refusal(file, use) == (
            f"says in its ss_sd_model_name that it is of the low-noise expert ('{low}'), and is used as the "
            f"high-noise expert here; {WAY_OUT}"
        )
    (tmp_path / "network").mkdir()
    config = tmp_path / "network/config.json"
    config.write_text(json.dumps({"_name_or_path": "Wan-AI/Wan2.2-T2V-A14B-Diffusers/transformer_2"}))
    assert "says in config.json that it is of the low-noise expert" in refusal(
        config.parent, Use(HIGH, 0.875)
    )
    assert "is used as a single network here" in refusal(config.parent, Use(SINGLE, None))
    check_said(config.parent, Use(LOW, 0.875))


def test_of_a_file_for_both_experts_each_half_speaks_for_itself(tmp_path: Path) -> None:
    key, release = "base_model_name_or_path", "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
    told = {f"{name}.{key}": f"{release}/{name}" for name in ("transformer", "transformer_2")}
    file = safetensors(tmp_path / "both.safetensors", {"lora_adapter_metadata": json.dumps(told)})
    for expert in (HIGH, LOW):
        check_said(file, adapter_use(expert))
    told["transformer.base_model_name_or_path"] = f"{release}/transformer_2"
    file = safetensors(tmp_path / "wrong.safetensors", {"lora_adapter_metadata": json.dumps(told)})
    check_said(file, adapter_use(LOW))
    assert "its transformer.base_model_name_or_path" in refusal(file, adapter_use(HIGH))


@pytest.mark.parametrize("text", ["", "[", "[1]", "[" * 100_000, '"Wan2.1"'])
def test_a_configuration_that_cannot_be_read_says_nothing(text: str, tmp_path: Path) -> None:
    folder = peft(tmp_path, "Wan2.1")
    (folder / "adapter_config.json").write_text(text)
    safetensors(folder / "adapter_model.safetensors", {"lora_adapter_metadata": text})
    (folder / "cut.safetensors").write_bytes(b"\xff" * 9)
    check_said(folder, adapter_use())


def test_a_name_says_something_and_proves_nothing() -> None:
    said = named_otherwise(Path("low_noise_model"), HIGH)
    assert (
        said == "low_noise_model is named as the low-noise expert, and is used as the high-noise expert here"
    )
    rows = (("high_noise_model", HIGH), ("transformer_2", LOW), ("transformer", LOW), ("a", SINGLE))
    assert all(named_otherwise(Path(name), expert) is None for name, expert in rows)
