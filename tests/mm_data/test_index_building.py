"""From listed clips to an index: what is measured, what the digest knows, what is left out, what changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pytest

from mm_config.schema import UserError
from mm_config.specs import Pieces
from mm_data.index.listed import Declared, LeftOut
from mm_data.index.measuring import is_variable
from mm_data.index.pieces import Cutting
from mm_data.index.report import reason_of, tell
from mm_data.index.table import IndexedRecords
from tests.mm_data.conftest import CLOSED_GOP, Coded
from tests.mm_data.sources import Opener, index_of, listed

VARIABLE = (0, 1, 2, 4, 8, 9, 12, 20)


@pytest.fixture(scope="session")
def filmed(tmp_path_factory: pytest.TempPathFactory, coded: Coded) -> Path:
    """A folder of clips of which everything is known."""
    root = tmp_path_factory.mktemp("filmed").resolve()
    coded.write(root / "plain.mp4")
    coded.write(root / "other.mkv", range(24), options={"x264-params": CLOSED_GOP.replace("8", "12")})
    coded.write(root / "variable.mp4", VARIABLE)
    shutil.copyfile(root / "plain.mp4", root / "copy.mp4")
    (root / "broken.mp4").write_bytes((root / "plain.mp4").read_bytes()[:700])
    return root


@pytest.fixture
def clips(filmed: Path, tmp_path: Path) -> Path:
    """The same folder, which the test may change."""
    return Path(shutil.copytree(filmed, tmp_path / "clips")).resolve()


def table_of(path: Path) -> dict[str, list]:
    """A file's columns by Arrow's own means."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all().to_pydict()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest_by_hand(rows: list[list]) -> str:
    """The content rule written again: sorted lines of canonical JSON."""
    texts = [json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows]
    return hashlib.sha256(b"".join(sorted(text.encode() for text in texts))).hexdigest()


def test_every_file_is_measured(filmed: Path, tmp_path: Path) -> None:
    names = ("plain.mp4", "other.mkv", "variable.mp4")
    built = index_of(filmed, [listed(filmed, name) for name in names], tmp_path / "index")
    found = table_of(tmp_path / "index/media.arrow")
    assert found["sha256"] == [sha256(filmed / name) for name in names]
    assert found["size"] == [(filmed / name).stat().st_size for name in names]
    assert found["num_frames"] == [40, 24, len(VARIABLE)]
    assert found["variable"] == [False, False, True]
    assert found["gop"] == [8, 12, 8]
    assert found["codec"] == ["h264"] * 3
    assert (found["height"], found["width"]) == ([64] * 3, [128] * 3)
    seconds = [Fraction(*each) for each in zip(found["seconds_num"], found["seconds_den"], strict=True)]
    assert seconds[0] == Fraction(40, 24) and seconds[1] == pytest.approx(1, abs=0.002)
    times = "".join(f"{Fraction(number, 24)}\n" for number in VARIABLE)
    assert found["pts_sha256"][2] == hashlib.sha256(times.encode()).hexdigest()
    assert built.stats["frames"] == 72
    rows = table_of(tmp_path / "index/rows.arrow")
    assert (rows["frames"], rows["fps_num"][0], rows["fps_den"][0]) == ([40, 24, 8], 24, 1)
    assert [record.path for record in IndexedRecords(tmp_path / "index")] == [filmed / name for name in names]


def test_the_digest_is_of_content_and_the_order_has_a_key_of_its_own(filmed: Path, tmp_path: Path) -> None:
    plain = listed(filmed, "plain.mp4", 'says "è" 紅')
    several = listed(filmed, "other.mkv", "one", "another", cut=(2, 20))
    cropped = listed(filmed, "variable.mp4", "x", crop=(0, 0, 32, 64))
    built = index_of(filmed, [plain, several, cropped], tmp_path / "a")
    by_hand = [
        [sha256(filmed / "plain.mp4"), 'says "è" 紅', None],
        [sha256(filmed / "other.mkv"), ["one", "another"], [2, 20]],
        [sha256(filmed / "variable.mp4"), "x", {"crop": [0, 0, 32, 64], "cut": None}],
    ]
    assert built.head.digest == digest_by_hand(by_hand)
    assert built.spec_line == f'IndexSpec(name="a", digest="{built.head.digest}")'
    turned = index_of(filmed, [cropped, plain, several], tmp_path / "b")
    assert turned.head.digest == built.head.digest
    assert turned.head.order_key != built.head.order_key
    second = IndexedRecords(tmp_path / "a")[1]
    assert (second.captions, second.cut) == (("one", "another"), (2, 20))
    assert second.measured is not None and second.measured.num_frames == 18


def test_a_killed_indexing_goes_on_and_measures_nothing_twice(clips: Path, tmp_path: Path) -> None:
    names = ["plain.mp4", "other.mkv", "variable.mp4", "copy.mp4"]
    entries = [listed(clips, name) for name in names]

    class Killed(Opener):
        def __call__(self, one):
            if one.name == "variable.mp4":
                raise KeyboardInterrupt
            return super().__call__(one)

    folder = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        index_of(clips, entries, folder, opened=Killed(), workers=1)
    assert not folder.exists()
    journal = tmp_path / "index.measured.jsonl"
    kept = journal.read_bytes()
    assert kept.count(b"\n") == 3
    journal.write_bytes(kept[:-30])
    opener = Opener()
    index_of(clips, entries, folder, opened=opener)
    assert sorted(opener.opened) == ["copy.mp4", "other.mkv", "variable.mp4"]
    assert not journal.exists()
    assert table_of(folder / "media.arrow")["sha256"] == [sha256(clips / name) for name in names]

    again = Opener()
    assert index_of(clips, entries, folder, opened=again).changes == ()
    assert again.opened == []
    shutil.copyfile(clips / "variable.mp4", clips / "plain.mp4")
    index_of(clips, entries, folder, opened=again, replace=True)
    assert again.opened == ["plain.mp4"]


def test_what_cant_be_used_is_counted_with_its_reason(filmed: Path, tmp_path: Path, capsys) -> None:
    entries = [
        LeftOut("odd.txt", "list:0", "it is no video"),
        listed(filmed, "broken.mp4"),
        listed(filmed, "missing-1.mp4"),
        listed(filmed, "plain.mp4"),
        listed(filmed, "missing-2.mp4"),
        listed(filmed, "other.mkv", cut=(20, 25)),
        listed(filmed, "variable.mp4", cut=(7, 9)),
        listed(filmed, "copy.mp4", crop=(0, 100, 64, 29)),
    ]
    assert reason_of(LeftOut("a", "b", "640x480 in mp4: 1.5 of 3")) == "NxN in mp4: N of N"
    built = index_of(filmed, entries, tmp_path / "index")
    reasons = built.stats["left_out"]["reasons"]
    assert reasons["open: no such file"] == 2
    assert reasons["cut: N to N is not inside N frames"] == 2
    assert built.stats["left_out"]["count"] == 7 == sum(reasons.values())
    assert built.head.rows == 1
    written = [json.loads(line) for line in (tmp_path / "index/left_out.jsonl").open()]
    assert [one["name"] for one in written] == [one.name for one in entries if one.name != "plain.mp4"]
    assert written[4]["reason"] == "cut: 20 to 25 is not inside 24 frames"
    tell(built.stats, built.left_out, built.mismatches)
    told = capsys.readouterr().out
    assert "left out: 7" in told and "missing-1.mp4 (list:missing-1.mp4)" in told
    with pytest.raises(UserError, match="holds no clip that can be used; 1: open: no such file"):
        index_of(filmed, [listed(filmed, "missing-1.mp4")], tmp_path / "none")


def test_declared_values_that_disagree_are_told(filmed: Path, tmp_path: Path) -> None:
    right = Declared(num_frames=40, fps=24.05, height=64, width=128, duration=1.7)
    wrong = Declared(num_frames=39, fps=25, height=128, width=64, duration=2)
    entries = [listed(filmed, "plain.mp4", declared=right), listed(filmed, "copy.mp4", declared=wrong)]
    built = index_of(filmed, entries, tmp_path / "index")
    assert {one.field: (one.declared, one.measured) for one in built.mismatches} == {
        "num_frames": (39, 40),
        "height": (128, 64),
        "width": (64, 128),
        "fps": (25, 24.0),
        "duration": (2, pytest.approx(40 / 24)),
    }
    assert {one.name for one in built.mismatches} == {"copy.mp4"}
    assert built.stats["mismatches"]["fps"] == 1


def test_changed_data_is_told_and_replaces_an_index_when_asked(clips: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "index"
    entries = [listed(clips, name) for name in ("plain.mp4", "other.mkv", "variable.mp4")]
    first = index_of(clips, entries, folder)
    assert first.changes is None
    shutil.copyfile(clips / "other.mkv", clips / "plain.mp4")
    now = [
        listed(clips, "plain.mp4"),
        listed(clips, "variable.mp4", "a new caption"),
        listed(clips, "copy.mp4"),
    ]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match="holds an index of other content, which stays as it is; --replace"):
        index_of(clips, now, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    lines = capsys.readouterr().out.splitlines()
    assert "copy.mp4 is new" in lines and "other.mkv is gone" in lines
    assert f"plain.mp4 is sha256 {sha256(clips / 'plain.mp4')[:12]}" in "\n".join(lines)
    assert any(line.startswith("variable.mp4 is") and "a new caption" in line for line in lines)
    replaced = index_of(clips, now, folder, replace=True)
    assert replaced.changes is not None and len(replaced.changes) == 4
    assert IndexedRecords(folder).head.digest == replaced.head.digest != first.head.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "index"]


def test_other_folders_are_left_alone(filmed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="is there and is no index; name a folder that isn't there yet"):
        index_of(filmed, [listed(filmed, "plain.mp4")], tmp_path / "mine")


@pytest.mark.parametrize(
    ("cutting", "cuts"),
    [
        (Cutting(), [None, None]),
        (Cutting(Pieces.CHUNKS, 16), [(0, 16), (16, 32), (0, 16)]),
        (Cutting(Pieces.WINDOWS, 20, 10), [(0, 20), (10, 30), (20, 40), (0, 20)]),
        (Cutting(Pieces.SHOTS), [(0, 7), (30, 40), None]),
    ],
)
def test_long_clips_become_pieces(filmed: Path, tmp_path: Path, cutting: Cutting, cuts: list) -> None:
    entries = [listed(filmed, "plain.mp4", shots=((0, 7), (30, 40))), listed(filmed, "other.mkv")]
    built = index_of(filmed, entries, tmp_path / "index", cutting=cutting)
    records = IndexedRecords(tmp_path / "index")
    assert [record.cut for record in records] == cuts
    assert [record.measured.num_frames for record in records if record.measured and record.cut] == [
        end - first for first, end in filter(None, cuts)
    ]
    assert len(table_of(tmp_path / "index/media.arrow")["sha256"]) == 2
    assert built.head.details["pieces"] == cutting.pieces.value


def test_pieces_need_their_numbers(filmed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="piece_frames: is missing; pieces are windows"):
        Cutting(Pieces.WINDOWS, None, 3)
    with pytest.raises(UserError, match="piece_stride: is given, which only windows have; pieces are chunks"):
        Cutting(Pieces.CHUNKS, 8, 3)
    built = index_of(
        filmed,
        [listed(filmed, "plain.mp4"), listed(filmed, "other.mkv")],
        tmp_path / "index",
        cutting=Cutting(Pieces.CHUNKS, 30),
    )
    assert built.stats["left_out"]["reasons"] == {"pieces: it has fewer than 30 frames": 1}


@pytest.mark.parametrize(
    ("pts", "variable"),
    [
        ((0, 42, 83, 125, 167, 208), False),  # 24 frames/s in milliseconds, as Matroska has them.
        ((0, 3000, 6003, 9003, 12006), True),  # 30 and 29.97 frames/s in turn, in 1/90000 s.
        ((0, 1, 2, 4, 5), True),
        ((0, 1, 2, 3), False),
        ((7,), False),
    ],
)
def test_rates_vary_where_rounding_doesnt_explain_it(pts: tuple[int, ...], variable: bool) -> None:
    assert is_variable(pts) == variable
