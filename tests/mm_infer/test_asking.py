"""Requests in a file, a JSON object on each line, as `mm generate --requests` reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mm_config
from mm_config.cli.app import app
from mm_config.schema import UserError
from mm_config.specs import Conditioning, GenerationRequest, InferSpec
from mm_data import read_comment
from mm_infer.asking import read_requests
from tests.mm_infer.test_given_frames import image

SHARED = {"negative_prompt": "fog", "seed": 9}


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    return path


def test_each_line_is_a_request(tmp_path: Path) -> None:
    file = write(
        tmp_path / "wanted.jsonl",
        '{"prompt": "a", "seed": 3, "image": "x.png"}',
        "",
        '{"prompt": "b", "negative_prompt": "", "last_image": "/y.png"}',
    )
    assert read_requests(file, SHARED) == (
        GenerationRequest(prompt="a", seed=3, negative_prompt="fog", image=str(tmp_path / "x.png")),
        GenerationRequest(prompt="b", seed=9, negative_prompt="", last_image="/y.png"),
    )


def test_what_is_wrong_with_lines_is_told_all_at_once(tmp_path: Path) -> None:
    wrong = {
        "no": ":1: is no JSON",
        "[1]": ":2: is no JSON object",
        '{"prompt": "a", "prompt": "b"}': ":3: says a key twice",
        '{"seed": 1}': ":4.prompt: missing",
        '{"prompt": "a", "seed": "1"}': ":5.seed: ",
        '{"prompt": "a", "imag": "x.png"}': ":6.imag: ",
    }
    file = write(tmp_path / "wanted.jsonl", *wrong, '{"prompt": "good"}')
    with pytest.raises(UserError) as caught:
        read_requests(file, SHARED)
    told = [str(problem).removeprefix(str(file)) for problem in caught.value.problems]
    assert all(one.startswith(start) for one, start in zip(told, wrong.values(), strict=True)), told
    with pytest.raises(UserError, match="asks for nothing"):
        read_requests(write(file, "", ""), SHARED)
    with pytest.raises(UserError, match="can't be read: No such file"):
        read_requests(tmp_path / "none", SHARED)


def test_generate_makes_a_video_for_each_line(
    spec: InferSpec,
    release: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"num_frames": 5, "sampler.steps": 2, "model.conditioning": Conditioning.CLEAN_FIRST_FRAME}
    mm_config.dump(mm_config.replace(spec, small), tmp_path / "spec.json")
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    (tmp_path / "asked").mkdir()
    image(tmp_path / "asked/a.png")
    write(tmp_path / "asked/wanted.jsonl", '{"prompt": "a", "image": "a.png"}', '{"prompt": "b", "seed": 4}')
    words = ["generate", "spec.json", "--requests", "asked/wanted.jsonl", "--seed", "2", "--out", "made"]
    assert app(words) == 0
    made = {
        path.name: json.loads(read_comment(path) or "")["request"]["spec"] for path in Path("made").iterdir()
    }
    assert {name: (one["seed"], one["image"]) for name, one in made.items()} == {
        "a-2.mp4": (2, "asked/a.png"),
        "b-4.mp4": (4, None),
    }
    capsys.readouterr()
    assert app([*words, "--force", "--prompt", "c"]) == 2
    assert capsys.readouterr().err == "--prompt: is said by each line of --requests; leave it out\n"
