"""`mm generate`, through the command that people type."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import pytest

import mm_config
from mm_config import replace, spec_hash
from mm_config.cli.app import app
from mm_config.specs.infer import InferSpec
from mm_config.specs.requests import GenerationRequest
from mm_data import read_comment

RED, BLUE = "a red circle moving right", "a blue square moving up"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: InferSpec, release: Path) -> Path:
    """A folder with a saved spec and the release's location."""
    mm_config.dump(spec, tmp_path / "spec.json")
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(*words: str) -> int:
    return app(["generate", *words])


def frames_of(file: Path) -> bytes:
    with av.open(str(file)) as video:
        return b"".join(frame.to_ndarray().tobytes() for frame in video.decode(video=0))


def problems_of(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    capsys.readouterr()
    assert generate(*words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()


def test_one_prompt_becomes_one_file_and_its_path_is_printed_last(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    assert (
        generate("spec.json", "--prompt", RED, "--seed", "3", "--negative-prompt", BLUE, "--out", "x.mp4")
        == 0
    )
    assert capsys.readouterr().out.splitlines()[-1] == "x.mp4"
    request = json.loads(read_comment(place / "x.mp4"))["request"]
    shown = json.dumps(request)
    assert RED in shown and BLUE in shown and "3" in shown


def test_an_empty_negative_prompt_is_one(place: Path):
    made = {
        "cleared": ("--spec.negative-prompt", BLUE, "--negative-prompt", ""),
        "equals": ("--spec.negative-prompt", BLUE, "--negative-prompt="),
        "default": ("--spec.negative-prompt", BLUE),
        "none": (),
    }
    frames = {}
    for name, words in made.items():
        assert generate("spec.json", "--prompt", RED, *words, "--out", f"{name}.mp4") == 0
        frames[name] = frames_of(place / f"{name}.mp4")
    assert frames["cleared"] == frames["equals"] == frames["none"] != frames["default"]


def test_several_prompts_become_files_in_a_folder(place: Path, capsys: pytest.CaptureFixture[str]):
    assert generate("spec.json", "--prompt", RED, "--prompt", BLUE, "--out", "both") == 0
    names = ["a-red-circle-moving-right-0.mp4", "a-blue-square-moving-up-0.mp4"]
    assert sorted(path.name for path in (place / "both").iterdir()) == sorted(names)
    assert capsys.readouterr().out.splitlines()[-2:] == [f"both/{name}" for name in names]


def test_fields_of_the_spec_can_be_overridden(place: Path, spec: InferSpec):
    assert generate("spec.json", "--prompt", RED, "--out", "x.mp4", "--spec.steps", "2") == 0
    assert json.loads(read_comment(place / "x.mp4"))["spec_hash"] == spec_hash(
        replace(spec, "sampler.steps", 2)
    )


def test_an_existing_file_is_kept_unless_forced(place: Path, capsys: pytest.CaptureFixture[str]):
    (place / "x.mp4").write_text("precious")
    words = ("spec.json", "--prompt", RED, "--out", "x.mp4")
    assert problems_of(capsys, *words) == [
        "--out: 'x.mp4' exists already; choose another name or add --force"
    ]
    assert (place / "x.mp4").read_text() == "precious"
    assert generate(*words, "--force") == 0
    assert read_comment(place / "x.mp4")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--out", "x.mp4"), ["--prompt: is missing; say what the video shows, or give --prompts"]),
        (("--prompt", RED), ["--out: is missing; name the .mp4 to write"]),
        (("--prompt", " ", "--out", "x.mp4"), ["--prompt: is blank"]),
        (
            ("--prompt", RED, "--out", "x.avi"),
            ["--out: expected the name of a file that ends in .mp4, got 'x.avi'"],
        ),
        (("--prompt", RED, "--out", "no/x.mp4"), ["--out: the folder 'no' does not exist"]),
        (
            ("--prompt", RED, "--prompt", BLUE, "--out", "x.mp4"),
            ["--out: several prompts need a folder, got the file name 'x.mp4'"],
        ),
        (
            ("--prompt", RED, "--out", "x.mp4", "--seed", "-1"),
            ["--seed: expected a whole number of at least 0, got '-1'"],
        ),
        (
            ("--prompt", " ", "--seed", "x", "--out", "no/x.mp4"),
            [
                "--prompt: is blank",
                "--seed: expected a whole number of at least 0, got 'x'",
                "--out: the folder 'no' does not exist",
            ],
        ),
    ],
)
def test_mistakes_are_listed_all_at_once_and_nothing_is_made(
    words: tuple[str, ...], expected: list[str], place: Path, capsys: pytest.CaptureFixture[str]
):
    before = sorted(place.iterdir())
    assert problems_of(capsys, "spec.json", *words) == expected
    assert sorted(place.iterdir()) == before


def test_mistakes_in_fields_join_the_list(place: Path, capsys: pytest.CaptureFixture[str]):
    lines = problems_of(
        capsys, "spec.json", "--prompt", RED, "--out", "x.avi", "--spec.stepz", "4", "--spec.shift", "nan"
    )
    assert len(lines) == 3
    assert lines[0].startswith("--out:")
    assert any("--spec.steps" in line for line in lines)
    assert any(line.startswith("spec.sampler.shift:") for line in lines)


def test_a_folder_that_takes_no_files_is_refused_before_any_work(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    for words in (
        ("--prompt", RED, "--out", "/proc/x.mp4"),
        ("--prompt", RED, "--prompt", BLUE, "--out", "/proc/x"),
    ):
        (line,) = problems_of(capsys, "spec.json", *words)
        assert line.startswith("--out: ") and "'/proc'" in line


def test_what_would_fail_after_a_training_is_refused_before(place: Path, capsys: pytest.CaptureFixture[str]):
    words = ("--prompt", "red " * 40, "--out", "x.mp4", "--spec.shift", "1e6")
    assert problems_of(capsys, "experiments.tiny", *words, "--spec.build-missing") == [
        "spec.sampler.shift: 1000000.0 crowds 20 noise levels too closely for float32 to tell apart",
        f"spec.text_encoder.max_tokens: '{'red ' * 15}...' has 40 words, 7 fit",
    ]
    assert not (place / "runs").exists()


def test_a_missing_release_says_how_to_define_it(place: Path, capsys: pytest.CaptureFixture[str]):
    (place / "locations.yaml").unlink()
    lines = problems_of(capsys, "spec.json", "--prompt", RED, "--out", "x.mp4")
    assert [line.partition(":")[0] for line in lines] == ["spec.high_noise", "spec.low_noise"]
    assert all("--location test/tiny=PATH" in line for line in lines)


def test_help_teaches_and_needs_no_torch():
    code = (
        "import sys; from mm_config.cli.app import app; "
        "status = app(['generate', '--help']); assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for taught in (
        "--prompt TEXT",
        "--negative-prompt",
        "--seed N",
        "--out PATH",
        "--force",
        "mm generate 7f3a91c2",
    ):
        assert taught in done.stdout


def test_a_runs_folder_that_can_not_be_made_is_refused_before_any_work(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    words = ("--prompt", RED, "--out", "x.mp4", "--runs-dir", "/proc/runs")
    (line,) = problems_of(capsys, "spec.json", *words)
    assert line.startswith("/proc/runs: the run folder can't be written: ")
    assert not (place / "x.mp4").exists()


def test_what_stands_beside_a_spec_is_asked_for_again(place: Path, capsys: pytest.CaptureFixture[str]):
    """The layers of a video in one file make it again; options change what they say of each request."""
    assert generate("spec.json", "--prompt", RED, "--seed", "3", "--frames", "9", "--out", "first.mp4") == 0
    capsys.readouterr()
    assert app(["show", "first.mp4", "--format", "layers"]) == 0
    (place / "first.json").write_text(capsys.readouterr().out)
    for target in ("first.json", "first.mp4"):
        assert generate(target, "--out", "again.mp4", "--force") == 0
        assert frames_of(place / "again.mp4") == frames_of(place / "first.mp4")
    assert generate("first.json", "--seed", "4", "--out", "other.mp4") == 0
    request = json.loads(read_comment(place / "other.mp4"))["request"]["spec"]
    assert (request["prompt"], request["seed"], request["num_frames"]) == (RED, 4, 9)
    assert problems_of(capsys, "first.json", "--image", "a", "--image", "b", "--out", "x.mp4") == [
        "--image: names 2 files for 1 prompts; give one for all, or one for each"
    ]


def test_a_file_with_requests_is_not_asked_for_prompts_where_its_spec_is_refused(
    place: Path, spec: InferSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    two_ranks = replace(spec, "runtime.parallel.ulysses", 2)
    mm_config.dump(two_ranks, "two.json", by_layers=True, requests=(GenerationRequest(prompt=RED),))
    (line,) = problems_of(capsys, "two.json", "--seed", "4", "--out", "x.mp4")
    assert line.startswith("spec.runtime.parallel: ") and line.endswith("but the run has 1; start 2")
