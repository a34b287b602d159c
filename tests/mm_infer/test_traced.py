"""What made a video is found from the file alone, however it was made and wherever it lies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mm_config import dump, exact_hash, load, replace, spec_hash
from mm_config.cli.app import app
from mm_config.options.locations import load_locations
from mm_config.options.run_options import RunOptions
from mm_config.running import runners
from mm_config.runs.folder import open_run
from mm_config.runs.index import open_index
from mm_config.specs import AppliedLoraSpec, GenerationRequest, InferSpec, ReleasedWeights
from mm_config.stored.json_files import read_json
from mm_data import read_comment, write_mp4
from mm_infer.pipeline import Video
from mm_infer.writing import write_video
from mm_models.lora.adapter import HIGH_NOISE, Adapter, LowRank
from mm_models.lora.writing import save_adapters
from mm_models.seeding import generator

RED, BLUE = "a red circle moving right", "a blue square moving up"
WAYS = [
    "experiment",
    "run",
    "overrides",
    "adapters",
    "first",
    "second",
    "hash",
    "id",
    "moved",
    "negative",
    "reproduced",
    "video",
]
EXPERIMENT = "from mm_config import load\nSPEC = load('tiny.json')\n"

Made = dict[str, tuple[Path, InferSpec, GenerationRequest]]
Mm = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, spec: InferSpec, release: Path
) -> Iterator[tuple[Path, InferSpec]]:
    """A folder to work in, with a spec, an experiment of it and an adapter."""
    folder = tmp_path_factory.mktemp("place")
    small = {"name": "tiny", "num_frames": 5, "height": 32, "width": 32, "sampler.steps": 3}
    tiny = replace(spec, {**small, "samples.prompts": (RED, BLUE), "samples.seeds": (5,)})
    draws = generator(0, "adapter")
    shape = spec.model.parameter_shapes()["proj_out.weight"]
    layer = LowRank(torch.randn(2, shape[1], generator=draws), torch.randn(shape[0], 2, generator=draws), 1.0)
    save_adapters({HIGH_NOISE: Adapter({"proj_out": layer})}, folder / "lora")
    dump(tiny, folder / "tiny.json")
    (folder / "locations.yaml").write_text(f"test/tiny: {release}\ntest/lora: {folder / 'lora'}\n")
    (folder / "mine.py").write_text(EXPERIMENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder, tiny


@pytest.fixture(scope="module")
def made(place: tuple[Path, InferSpec]) -> Made:
    """A video by each way, with the spec and the request that it was made of."""
    folder, tiny = place

    def generate(target: str, out: str, *words: str, prompt: str = RED) -> Path:
        assert app(["generate", target, "--prompt", prompt, "--out", out, *words]) == 0
        return folder / out

    adapted = replace(tiny, "loras", (AppliedLoraSpec(high_noise=ReleasedWeights(name="test/lora")),))
    dump(adapted, folder / "adapted.json")
    found: Made = {}
    result = read_json(runners.run(tiny, RunOptions(locations=load_locations())).result_path)
    found["run"] = (Path(result["videos"][1]["path"]), tiny, GenerationRequest(prompt=BLUE, seed=5))
    red = GenerationRequest(prompt=RED)
    found["experiment"] = (generate("mine.py", "a.mp4"), tiny, red)
    steps = replace(tiny, {"sampler.steps": 2, "runtime.batch_size": 2})
    overrides = ("--spec.steps", "2", "--spec.batch-size", "2")
    found["overrides"] = (generate("tiny.json", "b.mp4", *overrides), steps, red)
    found["adapters"] = (generate("adapted.json", "c.mp4", "--seed", "3"), adapted, replace(red, "seed", 3))
    both = generate("mine.py", "both", "--prompt", BLUE)
    first, second = (next(both.glob(f"{start}*.mp4")) for start in ("a-red", "a-blue"))
    found["first"] = (first, tiny, red)
    found["second"] = (second, tiny, GenerationRequest(prompt=BLUE))
    found["hash"] = (generate(spec_hash(tiny)[:8], "d.mp4", "--seed", "4"), tiny, replace(red, "seed", 4))
    run_id = open_index(folder / "runs").find_finished(spec_hash(tiny))[0].path
    found["id"] = (
        generate(run_id, "e.mp4", "--spec.shift", "3"),
        replace(tiny, "sampler.shift", 3.0),
        red,
    )
    moved = folder / "elsewhere" / "kept.mp4"
    moved.parent.mkdir()
    generate("mine.py", "f.mp4", "--seed", "6").rename(moved)
    found["moved"] = (moved, tiny, replace(red, "seed", 6))
    avoided = generate("mine.py", "g.mp4", "--negative-prompt", RED, prompt=BLUE)
    found["negative"] = (avoided, tiny, GenerationRequest(prompt=BLUE, negative_prompt=RED))
    assert app(["reproduce", "a.mp4"]) == 0
    (again,) = (folder / "runs" / "reproductions").glob("tiny/*/samples/*.mp4")
    found["reproduced"] = (again, tiny, red)
    found["video"] = (generate("a.mp4", "h.mp4", prompt=BLUE), tiny, GenerationRequest(prompt=BLUE))
    assert sorted(found) == sorted(WAYS)
    return found


@pytest.fixture
def mm(capsys: pytest.CaptureFixture[str], made: Made) -> Mm:
    """The command line in this process: its status and what it prints."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = app(list(map(str, words)))
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


@pytest.mark.parametrize("way", WAYS)
def test_show_tells_the_spec_and_the_request_of_a_video(way: str, made: Made, mm: Mm, tmp_path: Path) -> None:
    path, spec, request = made[way]
    status, shown, said = mm("show", path, "--format", "json")
    assert (status, said) == (0, "")
    (tmp_path / "shown.json").write_text(shown)
    assert exact_hash(load(tmp_path / "shown.json")) == exact_hash(spec)
    _, lines, _ = mm("show", path, "--format", "flat")
    for name in ("prompt", "negative_prompt", "seed"):
        (line,) = (line for line in lines.splitlines() if line.startswith(f"request.{name} = "))
        assert line.partition(" = ")[2].strip("'\"") == str(getattr(request, name))
    _, page, _ = mm("show", path)
    comment = json.loads(read_comment(path))
    origin = f"made by the run {comment['run']['id']}  made of {comment['made_of'][:12]}\n"
    assert page.startswith(origin) and request.prompt in page and f"  {request.seed}\n" in page


@pytest.mark.parametrize("way", WAYS)
def test_reproduce_makes_one_video_again(way: str, made: Made, mm: Mm) -> None:
    path, _, _ = made[way]
    status, told, _ = mm("reproduce", path, "--json")
    report = json.loads(told)
    assert (status, report["identical"], report["compared"]["videos"]) == (0, True, 1)


def test_other_frames_under_the_comment_of_a_video_are_told_apart(made: Made, mm: Mm, tmp_path: Path) -> None:
    frames = torch.zeros(5, 32, 32, 3, dtype=torch.uint8)
    write_mp4(tmp_path / "black.mp4", frames, 8, comment=read_comment(made["moved"][0]))
    status, told, _ = mm("reproduce", tmp_path / "black.mp4")
    assert status == 1 and "black.mp4 was encoded again, or damaged, after it was made\n" in told


def test_diff_tells_what_differs_between_two_videos(made: Made, mm: Mm) -> None:
    status, told, _ = mm("diff", made["experiment"][0], made["overrides"][0], "--json")
    report = json.loads(told)
    assert status == 1 and report["requests"] == []
    assert {change["path"] for change in report["changes"]} == {
        "spec.sampler.steps",
        "spec.runtime.batch_size",
    }
    status, told, _ = mm("diff", made["experiment"][0], made["negative"][0], "--json")
    report = json.loads(told)
    asked = {change["path"]: (change["old"], change["new"]) for change in report["requests"]}
    assert status == 1 and report["changes"] == []
    assert asked == {"request.prompt": (RED, BLUE), "request.negative_prompt": (None, RED)}
    status, told, _ = mm("diff", made["experiment"][0], made["reproduced"][0])
    assert status == 0 and "equal in every field" in told
    status, told, _ = mm("diff", made["experiment"][0], "mine.py")
    assert status == 0 and told.splitlines()[-2:] == ["only in the first", "  request"]
    _, page, _ = mm("diff", made["experiment"][0], made["moved"][0])
    assert "the requests differ in 1 field" in page and "request.seed" in page and "0 -> 6" in page


def test_a_run_keeps_its_requests_and_where_its_videos_went(
    made: Made, place: tuple[Path, InferSpec], mm: Mm
) -> None:
    first, second = made["first"][0], made["second"][0]
    folder = place[0] / "runs" / json.loads(read_comment(first))["run"]["id"]
    videos = read_json(folder / "result.json")["videos"]
    assert [video["path"] for video in videos] == [str(first), str(second)]
    status, told, _ = mm("reproduce", folder, "--json")
    assert status == 0 and json.loads(told)["compared"]["videos"] == 2
    _, lines, _ = mm("show", folder, "--format", "flat")
    assert f"requests.1.prompt = '{BLUE}'" in lines.splitlines()
    _, listed, _ = mm("runs", "show", first, "--json")
    assert json.loads(listed)["folder"].endswith(folder.name)
    content = read_json(folder / "requests.json")
    content["requests"][0]["spec"]["seed"] = 9
    copy = place[0] / "copied" / folder.parent.name / folder.name
    shutil.copytree(folder, copy)
    (copy / "requests.json").write_text(json.dumps(content))
    status, _, said = mm("show", copy)
    assert status == 2 and said.endswith("is not what the run was started with: it was edited\n")


def test_runs_that_made_other_videos_are_no_run_of_the_spec(
    made: Made, place: tuple[Path, InferSpec]
) -> None:
    index, digits = open_index(place[0] / "runs"), spec_hash(place[1])
    own = [record for record in index.list(matching=digits) if record.requests_hash is None]
    assert index.find_finished(digits) == tuple(own) and len(index.list(matching=digits)) > len(own)
    index.reindex()
    assert index.find_finished(digits) == tuple(own)


def test_what_is_missing_is_said(made: Made, mm: Mm, tmp_path: Path) -> None:
    path, spec, _ = made["adapters"]
    run = json.loads(read_comment(path))["run"]["id"]
    digits = spec_hash(spec)[:12]
    elsewhere = ("--runs-dir", tmp_path)
    expected = (
        f"{path}: was made by the run {run}, which is not in {tmp_path}, and {tmp_path} has no other run "
    )
    told = f"{expected}of its spec {digits}; --runs-dir names another folder\n"
    assert mm("show", path, *elsewhere) == (2, "", told)
    shutil.copytree("runs", tmp_path, dirs_exist_ok=True)
    for gone in (run, "reproductions"):
        shutil.rmtree(tmp_path / gone)
    status, _, said = mm("show", path, *elsewhere)
    assert status == 2 and f"{run}, whose folder {tmp_path / run} is gone, and" in said
    # Another run of the spec tells what it is, but not what was made.
    other = open_run(spec, RunOptions(tmp_path))
    status, _, said = mm("show", path, *elsewhere)
    told = f"which has the same spec {digits} and is not known to be made of the same\n"
    assert status == 0 and said.endswith(f"taking {other.record.path}, {told}")
    status, _, said = mm("reproduce", path, *elsewhere)
    assert status == 2 and said.startswith(f"{path}: can't be made again: was made by the run {run}, whose ")


def test_a_video_that_no_run_records_says_so(place: tuple[Path, InferSpec], mm: Mm, tmp_path: Path) -> None:
    frames = torch.zeros(5, 32, 32, 3, dtype=torch.uint8)
    write_video(tmp_path / "x.mp4", Video(GenerationRequest(prompt=RED), frames), place[1])
    status, _, said = mm("show", tmp_path / "x.mp4")
    assert status == 0 and "names no run: it was written by the library's own doors" in said
    assert mm("reproduce", tmp_path / "x.mp4")[0] == 2
    write_mp4(tmp_path / "y.mp4", frames, 8)
    assert "carries no comment that says what made it" in mm("show", tmp_path / "y.mp4")[2]
    write_mp4(tmp_path / "z.mp4", frames, 8, comment="holiday")
    assert "carries a comment that is none of ours: 'holiday'" in mm("show", tmp_path / "z.mp4")[2]
    (tmp_path / "w.mp4").write_text("no video")
    assert "w.mp4: is no video: it is no whole mp4 file" in mm("show", tmp_path / "w.mp4")[2]


def test_other_weights_under_a_name_are_the_cause(made: Made, place: tuple[Path, InferSpec], mm: Mm) -> None:
    path, _, request = made["adapters"]
    (file,) = (place[0] / "lora").glob("*.safetensors")
    before = file.read_bytes()
    try:
        save_file({name: tensor * -3 for name, tensor in load_file(file).items()}, file)
        status, told, _ = mm("reproduce", path)
        assert status == 1
        (likely,) = (line for line in told.splitlines() if line.startswith("  likely "))
        assert likely.startswith("  likely      weights: spec.loras.0.high_noise: ")
        assert f"({file.name} is " in likely
        assert any(line.startswith("  largest     frames ") for line in told.splitlines())
        words = ("--prompt", request.prompt, "--seed", request.seed, "--out", place[0] / "new.mp4")
        assert mm("generate", "adapted.json", *words)[0] == 2, "the name met another content"
        assert mm("generate", "adapted.json", *words, "--accept-content")[0] == 0
    finally:
        file.write_bytes(before)
    # Nothing was asked otherwise, and yet the pixels are others.
    status, told, _ = mm("diff", path, place[0] / "new.mp4", "--json")
    report = json.loads(told)
    assert (status, report["changes"], report["requests"]) == (1, [], [])
    assert [one["name"] for one in report["content"]] == ["weights spec.loras.0.high_noise"]
    _, told, _ = mm("diff", path, place[0] / "new.mp4")
    assert "made_of differs: 1 input\nequal in every field\n" in told


def test_runs_are_compared_by_what_they_were_made_of_first(made: Made, mm: Mm) -> None:
    adapted, plain = made["adapters"][0], made["experiment"][0]
    status, told, _ = mm("runs", "compare", adapted, plain, "--json")
    report = json.loads(told)
    assert status == 0 and set(report["inputs"]) == {"spec.loras.0.high_noise", "requests.0.seed"}
    assert sorted(report["inputs"]["requests.0.seed"].values()) == [0, 3]
    _, told, _ = mm("runs", "compare", adapted, plain)
    titles = [line for line in told.splitlines() if line in ("inputs that differ", "fields that differ")]
    assert titles == ["inputs that differ", "fields that differ"]


def test_a_given_image_is_part_of_what_is_told(place: tuple[Path, InferSpec], mm: Mm, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "first.png")
    request = GenerationRequest(prompt=RED, image=str(tmp_path / "first.png"))
    run = open_run(place[1], RunOptions(requests=(request,)))
    frames = torch.zeros(5, 32, 32, 3, dtype=torch.uint8)
    write_video(tmp_path / "x.mp4", Video(request, frames), place[1], run)
    run.fail("the test")
    _, lines, _ = mm("show", tmp_path / "x.mp4", "--format", "flat")
    assert f"request.image = {tmp_path / 'first.png'}" in lines.splitlines()
