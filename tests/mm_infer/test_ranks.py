"""Generation as torchrun starts it: what ranks write and print together, and how they fail together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mm_config
from mm_config import replace
from mm_config.cli.app import app
from mm_config.specs import GuidanceMode, InferSpec, SamplesSpec
from mm_data import read_mp4

PROMPTS = ("a red circle moving up", "a blue square moving down", "a green triangle moving left")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: InferSpec, release: Path) -> Path:
    """A folder with the release's location, in which commands start."""
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    monkeypatch.chdir(tmp_path)
    small = {"sampler.steps": 2, "num_frames": 5, "runtime.device": "cpu", "runtime.batch_size": 1}
    own = SamplesSpec(prompts=PROMPTS, seeds=(4,))
    mm_config.dump(replace(spec, {**small, "samples": own}), tmp_path / "spec.json")
    return tmp_path


def alike() -> dict[str, str]:
    """Variables with which products are summed in one order, in one process and on ranks."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    """Two ranks of a module or a file, as a user starts them."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    return subprocess.run([*launcher, *words], capture_output=True, text=True, env=alike(), timeout=300)


def generate(out: str, *fields: str) -> tuple[str, ...]:
    asked = tuple(word for prompt in PROMPTS for word in ("--prompt", prompt))
    return ("-m", "mm_config", "generate", "spec.json", *asked, "--seed", "4", "--out", out, *fields)


@pytest.mark.parametrize(
    ("world", "degrees", "line"),
    [
        (
            "3",
            {"runtime.parallel.ulysses": 2},
            "spec.runtime.parallel: data 1 x ulysses 2 x ring 1 x tensor 1 = 2 ranks, but the run has 3; "
            "start 2",
        ),
        (
            "4",
            {"runtime.guidance": GuidanceMode.PARALLEL},
            "spec.runtime.parallel: data 1 x ulysses 1 x ring 1 x tensor 1 x 2 for runtime.guidance parallel "
            "= 2 ranks, but the run has 4; start 2, or set data to 2",
        ),
        (
            "3",
            {"runtime.parallel.ulysses": 3},
            "spec.runtime.parallel.ulysses: 3 ranks can't share the 2 heads of "
            "spec.model.num_attention_heads; those that can: 2",
        ),
    ],
)
@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_impossible_layout_is_one_line_before_anything_is_loaded(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    world: str,
    degrees: dict[str, Any],
    line: str,
    rank: str,
) -> None:
    """Each rank finds it by itself, without a process group, and the first one says it."""
    mm_config.dump(replace(mm_config.load(place / "spec.json"), degrees), place / "spec.json")
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setenv("RANK", rank)
    words = generate("made", "--runs-dir", "runs")[2:]
    assert app([*words]) == 2
    assert capsys.readouterr().err.splitlines() == ([line] if rank == "0" else [])
    assert not (place / "runs").exists()


def test_without_torchrun_a_layout_of_two_ranks_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = generate("made", "--spec.runtime.parallel.tensor", "2")[2:]
    assert app([*words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("tensor 2 = 2 ranks, but the run has 1; start 2")


@pytest.mark.slow
def test_the_command_line_makes_the_same_files_on_two_ranks(place: Path) -> None:
    assert app([*generate("alone")[2:]]) == 0
    deals = ("--spec.runtime.parallel.data", "2")
    done = torchrun(*generate("dealt", *deals))
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in Path("alone").iterdir())
    assert done.stdout.splitlines()[-3:] == [f"dealt/{name}" for name in _in_order(names)]
    assert done.stdout.count("run folder") == 1
    done = torchrun(*generate("shared", "--spec.runtime.parallel.ulysses", "2"))
    assert done.returncode == 0, done.stderr
    for folder, apart in (("dealt", 0), ("shared", 1)):
        assert sorted(path.name for path in Path(folder).iterdir()) == names
        for name in names:
            ours, theirs = (read_mp4(Path(one) / name).numpy().astype(int) for one in (folder, "alone"))
            # A frame's value is cut to 8 bits, so rounding may show as one of them, and as more once coded.
            assert np.abs(ours - theirs).mean() <= apart


def _in_order(names: list[str]) -> list[str]:
    return [next(name for name in names if name.startswith(prompt.replace(" ", "-"))) for prompt in PROMPTS]


@pytest.mark.slow
def test_a_run_on_two_ranks_writes_the_result_of_one_process(place: Path) -> None:
    experiment = place / "made.py"
    experiment.write_text(
        '"""Makes the videos of the spec beside it."""\n\n'
        "from pathlib import Path\n\nfrom mm_config import load, main\n\n"
        'SPEC = load(Path(__file__).with_name("spec.json"))\n\n'
        'if __name__ == "__main__":\n    main(SPEC)\n'
    )
    found: list[dict[str, Any]] = []
    for command in ([sys.executable, "made.py"], None):
        if command is not None:
            done = subprocess.run(command, capture_output=True, text=True, env=alike(), timeout=300)
        else:
            done = torchrun("made.py", "--spec.runtime.parallel.data", "2")
        assert done.returncode == 0, done.stderr
        found.append(json.loads(Path(done.stdout.splitlines()[-1]).read_text()))
    alone, dealt = found
    assert alone.keys() == dealt.keys()
    for ours, theirs in zip(dealt["videos"], alone["videos"], strict=True):
        for name in ("name", "prompt", "seed", "frames"):
            assert ours[name] == theirs[name]
        assert Path(ours["path"]).is_file() and Path(ours["latents"]).is_file()
    assert Path(dealt["contact_sheet"]).read_bytes() == Path(alone["contact_sheet"]).read_bytes()


LIBRARY = '''"""Makes videos by a pipeline that two ranks load, and fails on one where it is told to."""

import hashlib
import sys
from pathlib import Path

import mm_infer
from mm_config import load
from mm_config.options import RunOptions, load_locations
from mm_config.schema import UserError
from mm_infer import encoding

made_by = encoding.denoise


def failing(*given, **more):
    made_by(*given, **more)
    raise UserError("no video came of it")


if __name__ == "__main__":
    options = RunOptions(runs_dir=Path("runs"), locations=load_locations(()))
    pipeline = mm_infer.load(load(Path("spec.json")), options)
    if sys.argv[1:] == [str(pipeline.layout.ranks.rank)]:
        encoding.denoise = failing
    try:
        videos = pipeline(["a red circle moving up", "a blue square moving down", "a green triangle"])
    except UserError as error:
        said = str(error)
    else:
        frames = b"".join(video.frames.numpy().tobytes() for video in videos)
        said = hashlib.sha256(frames).hexdigest()
    Path(f"said-{pipeline.layout.ranks.rank}.txt").write_text(said)
'''


@pytest.mark.slow
def test_a_library_call_gives_every_rank_all_videos_or_the_mistake_of_one(place: Path) -> None:
    (place / "library.py").write_text(LIBRARY)
    subprocess.run([sys.executable, "library.py"], check=True, env=alike(), timeout=300)
    alone = (place / "said-0.txt").read_text()
    split = replace(mm_config.load(place / "spec.json"), {"runtime.parallel.data": 2})
    mm_config.dump(split, place / "spec.json")
    for words, expected in (((), alone), (("1",), "no video came of it")):
        done = torchrun("library.py", *words)
        assert done.returncode == 0, done.stderr
        assert [(place / f"said-{rank}.txt").read_text() for rank in range(2)] == [expected] * 2
