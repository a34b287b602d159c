"""`mm generate --prompts`: a folder for each video, made once, whatever else fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_config.cli.app import app
from mm_config.stored.mp4 import frames_digest
from tests.mm_infer.test_given_frames import image
from tests.mm_infer.test_ranks import torchrun

Generate = Callable[..., int]


@pytest.fixture
def generate(place: Path) -> Generate:
    """`mm generate spec.json ...` in a folder of its own."""
    return lambda *words: app(["generate", "spec.json", *words])


def write(*lines: dict[str, Any]) -> None:
    Path("p.jsonl").write_text("\n".join(map(json.dumps, lines)))


def results(out: str = "made") -> dict[str, dict[str, Any]]:
    return {file.parent.name: json.loads(file.read_text()) for file in Path(out).glob("*/result.json")}


def runs() -> list[Path]:
    return sorted(Path("runs").glob("*/2*"))


def test_items_are_the_videos_that_their_prompts_alone_make(generate: Generate) -> None:
    image(Path("frame.png"))
    write({"prompt": "a", "seed": 1, "image": "frame.png"}, {"prompt": "b/../c"}, {"prompt": "d", "seed": 1})
    assert generate("--prompts", "p.jsonl", "--out", "made") == 0
    made = results()
    assert [name.split("-")[0] for name in sorted(made)] == ["0001", "0002", "0003"]
    assert sorted(path.name for path in Path("made/0001-a-1").iterdir()) == [
        "request.json",
        "result.json",
        "video.mp4",
    ]
    assert generate("--prompt", "a", "--seed", "1", "--image", "frame.png", "--out", "alone.mp4") == 0
    alone = json.loads((runs()[-1] / "result.json").read_text())
    one = made["0001-a-1"]
    assert one["made_of"] == alone["made_of"]
    assert one["video"]["frames"] == frames_digest(Path("alone.mp4"))
    assert {"encode", "denoise", "decode"} <= one["timings"].keys() and one["peak_gib"] > 0
    assert app(["show", "made/0001-a-1/video.mp4"]) == 0
    page = Path("made/index.html").read_text()
    assert "b/../c" in page and 'href="0001-a-1/video.mp4"' in page
    assert Path("made/contact_sheet.png").is_file()


def test_what_is_finished_is_not_made_again(generate: Generate, capsys: pytest.CaptureFixture[str]) -> None:
    image(Path("frame.png"))
    write({"prompt": "a", "seed": 1, "image": "frame.png"}, {"prompt": "b", "seed": 2})
    words = ("--prompts", "p.jsonl", "--out", "made")
    assert generate(*words) == 0 and len(runs()) == 1
    assert generate(*words) == 0 and len(runs()) == 1
    assert "2 of 2 videos are in made already" in capsys.readouterr().out
    # Another image under the same name is another item; the earlier one stays.
    image(Path("frame.png"), seed=5)
    assert generate(*words) == 0 and len(runs()) == 2
    assert sorted(results()) == ["0001-a-1", "0001-a-1-2", "0002-b-2"]
    assert results()["0001-a-1"]["made_of"] != results()["0001-a-1-2"]["made_of"]
    # A damaged file is none that is finished.
    with Path("made/0002-b-2/video.mp4").open("r+b") as file:
        file.seek(-20, os.SEEK_END)
        file.write(b"x")
    assert generate(*words) == 0 and len(runs()) == 3
    assert results()["0002-b-2"]["made_of"] == results()["0002-b-2-2"]["made_of"]
    # The same twice is one video.
    write({"prompt": "b", "seed": 2}, {"prompt": "b", "seed": 2})
    capsys.readouterr()
    assert generate(*words) == 0 and len(runs()) == 3
    assert "1 line asks for what an earlier line asks for, too" in capsys.readouterr().out


def test_a_failing_item_is_recorded_and_the_rest_goes_on(
    generate: Generate, capsys: pytest.CaptureFixture[str]
) -> None:
    beyond_float = {"prompt": "too much", "seed": 3, "guidance_high_noise": 1e39, "guidance_low_noise": 1e39}
    write({"prompt": "a", "seed": 1}, beyond_float, {"prompt": "b", "seed": 2})
    assert generate("--prompts", "p.jsonl", "--out", "made") == 1
    assert sorted(results()) == ["0001-a-1", "0003-b-2"]
    failed = json.loads(Path("made/failed/0002-too-much-3.json").read_text())
    assert "finite" in failed["problems"][0] and failed["request"]["spec"]["prompt"] == "too much"
    told = capsys.readouterr().out.splitlines()
    assert told[-3:] == [
        "made/0001-a-1",
        "made/0003-b-2",
        "1 video could not be made; made/failed says why",
    ]
    write({"prompt": "a", "seed": 1}, beyond_float | {"guidance_high_noise": 2, "guidance_low_noise": 2})
    assert generate("--prompts", "p.jsonl", "--out", "made") == 0
    assert not list(Path("made/failed").iterdir())


def test_bad_lines_stop_the_job_unless_they_are_passed_over(
    generate: Generate, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        {"prompt": "a", "seed": 1},
        {"promt": "b"},
        {"prompt": "c", "image": "gone.png"},
        {"prompt": "d", "num_frames": 6},
    )
    words = ("--prompts", "p.jsonl", "--out", "made")
    assert generate(*words) == 2
    lines = capsys.readouterr().err.splitlines()
    starts = ("p.jsonl:2.promt: ", "p.jsonl:3.image: ", "p.jsonl:4.num_frames: ")
    assert all(any(line.startswith(start) for line in lines) for start in starts), lines
    assert not Path("made").exists() and not runs()
    assert generate(*words, "--keep-going") == 1
    assert sorted(results()) == ["0001-a-1"]
    failed = sorted(path.name for path in Path("made/failed").iterdir())
    assert [name.split("-")[0].removesuffix(".json") for name in failed] == ["0002", "0003", "0004"]


def test_options_that_have_no_part_are_refused(
    generate: Generate, capsys: pytest.CaptureFixture[str]
) -> None:
    write({"prompt": "a"})
    assert generate("--prompts", "p.jsonl", "--prompt", "b", "--force", "--out", "x.mp4") == 2
    assert capsys.readouterr().err.splitlines() == [
        "--prompt: is said by each line of --prompts; leave it out",
        "--force: has no part in --prompts: finished items stay as they are, in folders of their own",
        "--out: --prompts needs a folder, got the file name 'x.mp4'",
    ]
    assert generate("--prompt", "b", "--keep-going", "--out", "x.mp4") == 2
    assert capsys.readouterr().err == "--keep-going: has no part without --prompts; leave it out\n"


@pytest.mark.slow
def test_groups_of_ranks_share_the_items(generate: Generate) -> None:
    write(*({"prompt": prompt, "seed": 1} for prompt in "abcd"))
    assert generate("--prompts", "p.jsonl", "--out", "alone", "--spec.batch-size", "1") == 0
    words = ("-m", "mm_config", "generate", "spec.json", "--prompts", "p.jsonl", "--out", "shared")
    done = torchrun(*words, "--spec.batch-size", "1", "--spec.runtime.parallel.data", "2")
    assert done.returncode == 0, done.stderr
    alone, shared = results("alone"), results("shared")
    assert alone.keys() == shared.keys() and len(shared) == 4
    for name, one in shared.items():
        assert one["made_of"] == alone[name]["made_of"]
        assert one["video"]["frames"] == alone[name]["video"]["frames"]
