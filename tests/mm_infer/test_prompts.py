"""Files of prompts: what each kind says, and what is wrong with lines."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from mm_config.schema import UserError
from mm_config.specs import GenerationRequest, Resolution
from mm_infer.prompts import Asked, item_seed, read_prompts

SHARED = {"negative_prompt": "fog"}
FIRST, OTHER = 0x933305F9 // 2, 0xF06F7D68 // 2
PARQUET = pa.schema(
    [
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("image", pa.string()),
        ("num_frames", pa.int32()),
        ("resolution", pa.string()),
        ("last_image", pa.string()),
        ("guidance_high_noise", pa.float64()),
    ]
)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), "utf-8")
    return path


def requests(asked: tuple[Asked, ...]) -> dict[int, list[GenerationRequest]]:
    assert not [one.problems for one in asked if one.problems]
    return {one.number: list(one.requests) for one in asked}


def test_a_seed_follows_from_the_base_and_the_place() -> None:
    # What sha256sum prints of '0 0' begins with 933305f9, of '7 12' with f06f7d68; halved.
    assert item_seed(0, 0) == FIRST and item_seed(7, 12) == OTHER
    assert len({item_seed(base, index) for base in range(30) for index in range(300)}) == 9_000


def test_a_text_has_a_prompt_in_each_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa red circle\r\n\r\n  一只红色的圆 \r\n".encode())
    assert requests(read_prompts(file, SHARED)) == {
        1: [GenerationRequest(prompt="a red circle", negative_prompt="fog", seed=FIRST)],
        3: [GenerationRequest(prompt="一只红色的圆", negative_prompt="fog", seed=item_seed(0, 1))],
    }


def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    write(
        tmp_path / "wanted.jsonl",
        '{"prompt": "a, \\"b\\"", "seed": 3, "image": "x.png", "num_frames": 9}',
        "",
        '{"prompt": "7", "resolution": "480p", "last_image": "/y.png", "guidance_high_noise": 2.5}',
    )
    write(
        tmp_path / "wanted.csv",
        "seed,prompt,image,num_frames,resolution,last_image,guidance_high_noise",
        '3,"a, ""b""",x.png,9,,,',
        ",7,,,480p,/y.png,2.5",
    )
    rows = [
        {"prompt": 'a, "b"', "seed": 3, "image": "x.png", "num_frames": 9},
        {"prompt": "7", "resolution": "480p", "last_image": "/y.png", "guidance_high_noise": 2.5},
    ]
    parquet.write_table(pa.Table.from_pylist(rows, PARQUET), tmp_path / "wanted.parquet")
    first = GenerationRequest(
        prompt='a, "b"', negative_prompt="fog", seed=3, image=str(tmp_path / "x.png"), num_frames=9
    )
    second = [
        GenerationRequest(
            prompt="7",
            negative_prompt="fog",
            seed=item_seed(base, 1),
            resolution=Resolution.P480,
            last_image="/y.png",
            guidance_high_noise=2.5,
        )
        for base in (5, 6)
    ]
    lines = {".jsonl": (1, 3), ".csv": (2, 3), ".parquet": (1, 2)}
    for suffix, (one, two) in lines.items():
        assert requests(read_prompts(tmp_path / f"wanted{suffix}", SHARED, (5, 6))) == {
            one: [first],
            two: second,
        }


def told(file: Path) -> list[str]:
    asked = read_prompts(file, SHARED)
    return [str(problem).removeprefix(str(file)) for one in asked for problem in one.problems]


def test_each_bad_line_is_told_by_its_number(tmp_path: Path) -> None:
    wrong = {
        "no": ":1: is no JSON",
        "[1]": ":2: is no JSON object",
        '{"prompt": "a", "prompt": "b"}': ":3: says a key twice",
        '{"seed": 1}': ":4.prompt: missing",
        '{"prompt": "a", "seed": "1"}': ":5.seed: ",
        '{"prompt": "a", "imag": "x.png"}': ":6.imag: ",
        '{"prompt": ""}': ":7.prompt: ",
    }
    found = told(write(tmp_path / "wanted.jsonl", *wrong, '{"prompt": "good"}'))
    assert all(one.startswith(start) for one, start in zip(found, wrong.values(), strict=True)), found
    rows = ("prompt,seed", "a,1", "b,one", "c,2,3", '"two\nlines",4', "d,-1")
    found = told(write(tmp_path / "wanted.csv", *rows))
    starts = (":3.seed: ", ":4: has 3 cells for 2 fields", ":7.seed: ")
    assert all(one.startswith(start) for one, start in zip(found, starts, strict=True)), found


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("none.txt", None, "can't be read: No such file or directory"),
        ("empty.jsonl", b"\n\n", "asks for nothing"),
        ("latin.txt", b"caf\xe9", "can't be read: 'utf-8' codec"),
        ("wanted.yaml", b"", "expected .txt, .jsonl, .csv, .parquet, got .yaml"),
        ("wanted.csv", b"text,seed\na,1\n", "1: expected distinct names of fields, prompt among them"),
        ("wanted.parquet", b"PAR1", "is no Parquet file"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, name: str, content: bytes | None, line: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_prompts(file, SHARED)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"{file}:") and line in str(problem)
