"""What MindSpeed-MM's files say of clips and captions: imported, and carried out by a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_config.importing.mindspeed.importer import import_files
from mm_config.rules.carried_out import refusals
from mm_config.schema.errors import UserError
from mm_config.specs.data import CaptionSpec, Cleaning, ClipStart, Interpolation, Resize
from mm_config.specs.train import TrainSpec
from tests.mm_config.importing.mindspeed_cases import write_case

DATA = Path(__file__).parent / "data"
RUNS = (
    ("seed_model.json", "data.json", "fsdp2_config.yaml", "tools.json", "seed_pretrain_high.sh"),
    ("seed_custom_model.json", "seed_custom_data.json", "seed_custom_fsdp2.yaml", "seed_custom_pretrain.sh"),
    ("native.yaml",),
)
RESIZED = '"interpolation_mode": "bilinear", "antialias": true, "mode"'


def imported(*files: Path) -> TrainSpec:
    spec, _ = import_files(list(files))
    assert isinstance(spec, TrainSpec)
    return spec


def refused(spec: TrainSpec) -> list[str]:
    """What a training refuses of the data."""
    return [str(problem) for problem in refusals(spec) if str(problem).startswith("spec.data")]


@pytest.mark.parametrize("files", RUNS)
def test_all_of_the_seeds_data_is_carried_out(files):
    assert refused(imported(*(DATA / file for file in files))) == []


def test_all_of_random_configurations_data_is_carried_out(tmp_path):
    for number in range(40):
        files, _ = write_case(tmp_path, number)
        assert refused(imported(*files)) == [], f"case {number}"
        for file in files:
            file.unlink()


@pytest.mark.parametrize(
    ("now", "interpolation"),
    [
        (RESIZED, Interpolation.BILINEAR_ANTIALIASED),
        ('"antialias": false, "mode"', Interpolation.BILINEAR),
        ('"mode"', Interpolation.BILINEAR),
    ],
)
def test_the_transform_that_resizes_says_how(tmp_path, now, interpolation):
    file = tmp_path / "data.json"
    file.write_text((DATA / "data.json").read_text("utf-8").replace(RESIZED, now), "utf-8")
    data = imported(file).data
    assert (data.interpolation, data.resize, data.start) == (
        interpolation,
        Resize.CENTER_CROP,
        ClipStart.RANDOM,
    )


@pytest.mark.parametrize("now", ['"interpolation_mode": "bicubic", "mode"', '"align_corners": true, "mode"'])
def test_another_filter_is_refused(tmp_path, now):
    file = tmp_path / "data.json"
    file.write_text((DATA / "data.json").read_text("utf-8").replace(RESIZED, now), "utf-8")
    with pytest.raises(UserError, match=r"data\.json:30: .* can't be said here: only (bilinear|false)"):
        import_files([file])


@pytest.mark.parametrize("method", ["clean_caption", "basic_clean"])
def test_captions_are_cleaned_as_the_file_asks(tmp_path, method):
    text = (
        (DATA / "data.json")
        .read_text("utf-8")
        .replace('{"method": "basic_clean"}', f'{{"method": "{method}"}}')
    )
    file = tmp_path / "data.json"
    file.write_text(text, "utf-8")
    expected = CaptionSpec(cleaning=Cleaning.WEB_WITHOUT_CJK) if method == "clean_caption" else None
    assert imported(file).data.captions == expected
