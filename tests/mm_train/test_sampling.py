"""Videos that a training makes on its way: which they are, and that they change nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributed.tensor import DTensor

import mm_infer
import mm_train
from experiments import tiny_high, tiny_low
from mm_config import replace, rules
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.diffusion import Expert, SamplerSpec
from mm_config.specs.dtype import Dtype
from mm_config.specs.kinds import Conditioning
from mm_config.specs.lora import LoraSpec
from mm_config.specs.monitoring import TrainingSamplesSpec, ValidationSpec
from mm_config.specs.optim import EmaSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import RandomWeights, TrainedBy
from mm_data import read_mp4, write_mp4
from mm_train import loop, sampling
from tests.forked_ranks import RunRanks
from tests.mm_train.conftest import SMALL
from tests.mm_train.test_validation import tensors_of

SAMPLES = TrainingSamplesSpec(
    prompts=("a red circle moving up", "a blue square moving left"),
    seeds=(0, 7),
    sampler=SamplerSpec(steps=3, guidance_high_noise=2.0, guidance_low_noise=1.5),
    every_steps=2,
    batch_size=1,
    other_expert=RandomWeights(seed=5),
)
NAMES = sorted(
    f"{prompt}-{seed}.mp4"
    for prompt in ("a-red-circle-moving-up", "a-blue-square-moving-left")
    for seed in (0, 7)
)


@pytest.fixture
def spec(request: pytest.FixtureRequest) -> TrainSpec:
    name = request.node.name.partition("[")[0]
    changes = {**SMALL, "samples": SAMPLES, "data.batch_size": 4, "schedule.steps": 3, "name": name}
    return replace(tiny_high.SPEC, changes)


def made(run_dir: Path, step: int) -> dict[str, np.ndarray]:
    """The videos after a step."""
    folder = run_dir / "samples" / f"step-{step:08d}"
    assert (folder / "contact_sheet.png").is_file()
    return {file.name: read_mp4(file).numpy() for file in sorted(folder.glob("*.mp4"))}


def generated(spec: TrainSpec, options: RunOptions, folder: Path) -> dict[str, np.ndarray]:
    """The same by the pipeline, with the weights that the training left."""
    generation = attrs.evolve(rules.generation_of(spec), high_noise=TrainedBy(spec=spec))
    requests = generation.samples.requests
    videos = mm_infer.load(generation, options)(requests)
    found: dict[str, np.ndarray] = {}
    for name, video in zip(mm_infer.file_names(requests), videos, strict=True):
        write_mp4(folder / name, video.frames, spec.data.fps)
        found[name] = read_mp4(folder / name).numpy()
    return found


def with_frames(spec: TrainSpec, folder: Path) -> TrainSpec:
    """A network that is given first frames, and one for each prompt."""
    latents, mask = spec.autoencoder.latent_channels, spec.autoencoder.temporal_stride
    for number, colour in enumerate(("red", "blue")):
        Image.new("RGB", (96, 80), colour).save(folder / f"{number}.png")
    changes = {
        "model.conditioning": Conditioning.FIRST_FRAME,
        "model.in_channels": 2 * latents + mask,
        "samples.images": tuple(str(folder / f"{number}.png") for number in range(2)),
    }
    return replace(spec, changes)


@pytest.mark.parametrize("given", [False, True])
def test_they_are_those_of_the_pipeline_with_the_weights_of_that_step(
    given: bool, spec: TrainSpec, options: RunOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = with_frames(spec, tmp_path) if given else spec
    result = mm_train.train(spec, options)
    steps = sorted(path.name for path in (result.run_dir / "samples").iterdir())
    assert steps == ["step-00000002", "step-00000003"]
    videos, expected = made(result.run_dir, 3), generated(spec, options, tmp_path)
    assert list(videos) == sorted(expected) == NAMES
    for name, video in videos.items():
        assert video.shape == (17, 64, 64, 3)
        assert np.array_equal(video, expected[name])
    before = made(result.run_dir, 2)
    assert all((before[name] != video).any() for name, video in videos.items())
    assert f"samples after step 3: {result.run_dir}/samples/step-00000003" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": EmaSpec(decay=0.5)},
        {"precision.compute": Dtype.BFLOAT16, "lora": LoraSpec(rank=2, alpha=2.0, dropout=0.5)},
    ],
    ids=["average", "sharded adapters"],
)
def test_they_and_validation_change_nothing_of_the_training(
    changes: dict[str, Any], spec: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: Callable[..., Any] = loop.looked_at

    def watched(training: Any, *rest: Any) -> Any:
        network = training.network
        before = [module.training for module in network.modules()]
        found = looked_at(training, *rest)
        assert [module.training for module in network.modules()] == before and before[0]
        assert all(isinstance(one, DTensor) is training.ranks.grouped for one in network.parameters())
        assert all(one.grad is None for one in network.parameters())
        return found

    monkeypatch.setattr(loop, "looked_at", watched)
    looks = {"samples.every_steps": 1, "validation": ValidationSpec(every_steps=1, holdout=0.3)}
    spec = replace(spec, {**changes, **looks})
    random_state = torch.get_rng_state()
    results = [
        mm_train.train(one, options)
        for one in (spec, replace(spec, {"samples": None, "validation.every_steps": 1000}))
    ]
    assert torch.equal(torch.get_rng_state(), random_state)
    assert len(list((results[0].run_dir / "samples").iterdir())) == 3
    assert not (results[1].run_dir / "samples").exists()
    logged = [[json.loads(line) for line in (one.run_dir / "metrics.jsonl").open()] for one in results]
    steps = [[(line["loss"], line["grad_norm"]) for line in lines if "loss" in line] for lines in logged]
    assert steps[0] == steps[1] and len(steps[0]) == 3
    ours, theirs = (tensors_of(one.checkpoint) for one in results)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def on_two(rank: int, spec: TrainSpec, options: RunOptions) -> None:
    mm_train.train(spec, options)


def test_two_ranks_make_each_video_once(spec: TrainSpec, options: RunOptions, run_ranks: RunRanks) -> None:
    # Three batches for two ranks: one is computed twice, and written once.
    changes = {"samples.prompts": ("a", "b", "c"), "samples.seeds": (0,), "samples.every_steps": 9}
    spec = replace(spec, changes)
    alone = made(mm_train.train(spec, options).run_dir, 3)
    run_ranks(on_two, replace(spec, "name", "samples of two ranks"), options)
    (run_dir,) = (options.runs_dir / "samples of two ranks").iterdir()
    together = made(run_dir, 3)
    assert list(together) == list(alone) == ["a-0.mp4", "b-0.mp4", "c-0.mp4"]
    for name, video in together.items():
        assert np.abs(video.astype(int) - alone[name]).max() <= 2


def test_an_expert_alone_says_what_it_was_not_trained_on(
    spec: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    subtitles: list[str] = []

    def keep(*_: object, subtitle: str, **__: object) -> None:
        subtitles.append(subtitle)

    monkeypatch.setattr(sampling, "write_contact_sheet", keep)
    spec = replace(spec, {"samples.other_expert": None, "schedule.steps": 1})
    mm_train.train(spec, options)
    assert subtitles[0].endswith("high_noise expert alone, never trained below 0.875")
    low = rules.generation_of(replace(spec, "expert", Expert.LOW_NOISE))
    assert (low.boundary, low.sampler.guidance_high_noise) == (None, 1.5)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "long prompt": (
        {"samples.prompts": ("a", "word " * 99)},
        r"spec\.samples\.prompts\.1: has 99 words, \d+ fit$",
    ),
    "blank prompt": ({"samples.prompts": (" ",)}, r"spec\.samples\.prompts\.0: must say something"),
    "image for text": (
        {"samples.images": ("a.png", "b.png")},
        r"spec\.samples\.images: are given, but only a network that is given frames takes them",
    ),
    "odd frames": ({"samples.num_frames": 16}, r"spec\.samples\.num_frames: "),
    "lost expert": (
        {
            "samples.other_expert": TrainedBy(
                spec=replace(tiny_low.SPEC, {**SMALL, "start_from": RandomWeights()})
            )
        },
        r"^spec\.samples\.other_expert: .*no finished run",
    ),
    "expert of another network": (
        {"samples.other_expert": TrainedBy(spec=tiny_low.SPEC)},
        r"spec\.samples\.other_expert\.spec\.model\.hidden_size: was trained with 256",
    ),
    "no second expert": (
        {"expert": Expert.SINGLE, "diffusion.boundary": None},
        r"spec\.samples\.other_expert: must be None: a single network is trained",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_can_not_be_made_is_refused_before_weights_are_loaded(
    case: str, spec: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mm_train.training.find_start", None)
    changes, message = BAD[case]
    with pytest.raises(UserError, match=message):
        mm_train.train(replace(spec, changes), options)


def test_images_are_missed_and_broken_ones_named(
    spec: TrainSpec, options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mm_train.training.find_start", None)
    spec = with_frames(spec, tmp_path)
    with pytest.raises(UserError, match=r"^spec\.samples\.images: is missing: conditioning first_frame"):
        mm_train.train(replace(spec, "samples.images", ()), options)
    (tmp_path / "1.png").write_text("no image")
    with pytest.raises(UserError, match=r"^spec\.samples\.images\.1: "):
        mm_train.train(spec, options)
