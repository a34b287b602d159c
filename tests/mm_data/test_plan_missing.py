"""Missing files are found before training, counted, and named."""

from __future__ import annotations

import json

import attrs
import pytest

from mm_config.schema import UserError
from mm_config.specs import FolderSpec, MixturePart, MixtureSpec
from mm_data import check_files, prepare
from mm_data.mixing import mixed
from mm_data.plan import missing
from tests.mm_data.plans import spec


@pytest.fixture
def clips(tmp_path):
    """A function that lists clips of which some are there."""

    def make(count, there, name="a"):
        folder = tmp_path / name
        folder.mkdir()
        rows = [json.dumps({"path": f"{n}.mp4", "caption": "a"}) for n in range(count)]
        (folder / "manifest.jsonl").write_text("\n".join(rows))
        for n in there:
            (folder / f"{n}.mp4").touch()
        data = spec()
        return prepare(attrs.evolve(data.dataset, path=str(folder)), cache_dir=tmp_path / "cache")

    return make


def test_8_of_10_missing_files_are_refused_before_training(clips):
    with pytest.raises(UserError) as caught:
        check_files(spec(), clips(10, [2, 5]))
    assert str(caught.value) == (
        "spec.data.dataset: the files of 8 of 10 clips are missing: 0.mp4, 1.mp4, 3.mp4 and 5 more; "
        "0 may be; put them back, take them out of the list, or raise data.max_bad_share"
    )


@pytest.mark.parametrize(
    ("share", "count", "passes"), [(0.2, None, True), (0.19, None, False), (0.2, 1, False)]
)
def test_the_allowance_is_a_share_and_a_count(clips, share, count, passes, capsys):
    data, dataset = spec(max_bad_share=share, max_bad_clips=count), clips(10, range(2, 10))
    if not passes:
        with pytest.raises(UserError, match="2 of 10"):
            check_files(data, dataset)
        return
    check_files(data, dataset)
    assert "files of 2 of 10 clips are missing: 0.mp4, 1.mp4\n" in capsys.readouterr().out


def test_each_part_of_a_mixture_is_looked_at_by_itself(clips):
    dataset = mixed([clips(1000, range(1000), "a"), clips(2, [0], "b")], [1.0, 1.0])
    with pytest.raises(UserError, match=r"dataset\.parts\.1\.dataset: the files of 1 of 2 clips"):
        check_files(spec(), dataset)


def test_a_folder_in_a_file_s_place_is_none(clips, tmp_path):
    dataset = clips(2, [0])
    (tmp_path / "a" / "1.mp4").mkdir()
    assert missing.missing_files(dataset) == missing.Missing(2, 1, ("1.mp4",))


def test_of_many_clips_some_are_looked_for(clips, monkeypatch):
    monkeypatch.setattr(missing, "MOST", 10)
    assert missing.missing_files(clips(91, range(45))) == missing.Missing(
        10, 5, ("50.mp4", "60.mp4", "70.mp4")
    )


def test_8_of_10_files_that_a_training_could_not_index_are_refused_as_well(coded, tmp_path):
    for number in range(2):
        coded.write(tmp_path / f"{number}.mp4", range(17))
    (tmp_path / "2.mp4").touch()
    rows = [json.dumps({"path": f"{number}.mp4", "caption": "a"}) for number in range(10)]
    (tmp_path / "list.jsonl").write_text("\n".join(rows))
    folder = FolderSpec(name="x", path=str(tmp_path / "list.jsonl"))
    dataset = prepare(folder, cache_dir=tmp_path / "cache")
    with pytest.raises(UserError) as caught:
        check_files(spec(dataset=folder), dataset)
    assert str(caught.value) == (
        "spec.data.dataset: 8 of 10 files can't be used: 2.mp4 (open: the file is empty), 3.mp4 (open: no "
        "such file), 4.mp4 (open: no such file) and 5 more; 0 may be bad; mend them, take them out of the "
        "data, or raise data.max_bad_share"
    )
    check_files(spec(dataset=folder, max_bad_share=0.8), dataset)
    with pytest.raises(UserError, match="8 of 10 files can't be used"):
        check_files(spec(dataset=folder, max_bad_share=0.8, max_bad_clips=7), dataset)
    parts = MixtureSpec(parts=(MixturePart(dataset=folder, weight=1.0),))
    with pytest.raises(UserError, match=r"parts\.0\.dataset: 8 of 10 files"):
        check_files(spec(dataset=parts), mixed([dataset], [1.0]))


def test_a_file_that_went_bad_after_the_rows_were_written_counts(coded, tmp_path):
    (clips := tmp_path / "clips").mkdir()
    coded.write(clips / "a.mp4", range(17))
    (clips / "a.txt").write_text("a clip")
    folder = FolderSpec(name="x", path=str(clips))
    check_files(spec(dataset=folder), prepare(folder, cache_dir=tmp_path / "cache"))
    (clips / "b.mp4").touch()
    (clips / "b.txt").write_text("an empty one")
    with pytest.raises(UserError, match=r"1 of 2 files can't be used: b\.mp4 \(open: the file is empty\);"):
        check_files(spec(dataset=folder), prepare(folder, cache_dir=tmp_path / "cache"))
    (found,) = (tmp_path / "cache" / "indexes").glob("*/left_out.jsonl")
    assert json.loads(found.read_text())["name"] == "b.mp4"
