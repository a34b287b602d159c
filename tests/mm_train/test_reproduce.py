"""Real trainings and generations run again: the same to the last bit, or the first difference named."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

import mm_train
from experiments import tiny, tiny_low
from mm_config import replace, spec_hash
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.reproducing.compare import told
from mm_config.reproducing.reproduce import Reproduction, reproduce
from mm_config.reproducing.videos import frames_digest
from mm_config.running import runners
from mm_config.runs.folder import attach
from mm_config.runs.index import open_index
from mm_config.runs.record import RunStatus
from mm_config.schema.errors import UserError
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import RandomWeights, TrainedBy
from mm_data import read_comment, write_mp4
from mm_models import checkpoint

Metrics = Callable[[Path], list[dict[str, Any]]]
STEPS = 8


@pytest.fixture
def eight(small: TrainSpec) -> TrainSpec:
    return replace(small, {"schedule.steps": STEPS, "checkpoint.every_steps": 4})


def again(folder: Path, options: RunOptions, verify_steps: int | None = None) -> Reproduction:
    made = reproduce(attach(folder), options, verify_steps)
    assert made is not None
    return made


def told_differences(made: Reproduction) -> list[str]:
    return [str(difference) for difference in made.comparison.differences]


def test_a_training_is_reproduced_to_the_last_bit(
    eight: TrainSpec, options: RunOptions, metrics_of: Metrics
) -> None:
    stored = mm_train.train(eight, options).run_dir
    made = again(stored, options)
    assert made.comparison.identical
    expected = f"{STEPS} steps (loss, grad_norm, lr), 2 checkpoints (steps 4, 8)"
    assert told(made.comparison) == expected
    assert len(metrics_of(made.reproduced)) == STEPS
    assert json.loads((made.reproduced / "reproduction.json").read_text())["identical"]

    # Lookups by the spec still find the stored run, and not its reproduction.
    records = open_index(options.runs_dir).find_finished(spec_hash(eight))
    found = [options.runs_dir / record.path for record in records]
    assert stored in found
    assert made.reproduced not in found


def test_planted_differences_are_found_and_named(
    eight: TrainSpec, options: RunOptions, metrics_of: Metrics
) -> None:
    stored = mm_train.train(eight, options).run_dir
    lines = metrics_of(stored)
    loss = lines[6]["loss"]
    lines[6]["loss"] = loss + 1e-9
    (stored / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tensors,) = (stored / "checkpoints" / "step-00000008" / "optimizer").iterdir()
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)

    made = again(stored, options)
    first, second = told_differences(made)
    assert first == f"step 7: loss {loss + 1e-9} -> {loss}"
    assert second.startswith(f"step 8: checkpoint optimizer/{tensors.name} ")
    assert "since it was written" in second


def test_another_outcome_is_found_in_the_bytes_of_a_checkpoint(eight: TrainSpec, options: RunOptions) -> None:
    stored = mm_train.train(eight, options).run_dir
    other = mm_train.train(replace(eight, "seed", 1), options).run_dir
    shutil.rmtree(stored / "checkpoints" / "step-00000004")
    shutil.copytree(other / "checkpoints" / "step-00000004", stored / "checkpoints" / "step-00000004")
    found = [line.split() for line in told_differences(again(stored, options))]
    assert {(*words[:3], words[3].partition("/")[0]) for words in found} == {
        ("step", "4:", "checkpoint", part) for part in ("model", "optimizer", "state.json")
    }
    named = {words[4] for words in found}
    assert {"data", "spec_hash", "proj_out.weight", "proj_out.weight.exp_avg"} <= named
    assert not {"seconds", "spec", "step"} & named


def test_the_first_steps_alone_keep_the_schedule_of_the_whole_run(
    eight: TrainSpec, options: RunOptions, metrics_of: Metrics
) -> None:
    result = mm_train.train(eight, options)
    made = again(result.run_dir, options, verify_steps=3)
    assert made.comparison.identical
    assert (made.comparison.steps, made.comparison.checkpoints) == (3, ())
    record = attach(made.reproduced).record
    assert record.status is RunStatus.INTERRUPTED
    assert record.reason == "StoppedEarly: stopped after step 3 of 8, as asked; it can be resumed"
    assert record.spec_hash == spec_hash(eight)
    assert not (made.reproduced / "result.json").exists()

    # What is left can indeed be resumed, and then is the whole run.
    last = checkpoint.latest(made.reproduced / "checkpoints")
    assert last is not None
    assert checkpoint.read_state(last)["step"] == 3
    resumed = mm_train.train(eight, attrs.evolve(options, resume=str(made.reproduced)))
    assert resumed.run_dir == made.reproduced
    assert resumed.loss == result.loss
    assert len(metrics_of(resumed.run_dir)) == STEPS


def test_an_interrupted_training_is_reproduced_as_far_as_it_came(
    eight: TrainSpec, options: RunOptions
) -> None:
    with pytest.raises(StoppedEarly, match="stopped after step 5 of 8") as stopped:
        mm_train.train(eight, attrs.evolve(options, stop_after=5))
    made = again(stopped.value.run_dir, options)
    assert made.comparison.identical
    assert told(made.comparison) == "5 steps (loss, grad_norm, lr), 2 checkpoints (steps 4, 5)"
    with pytest.raises(UserError, match="has 5 steps to compare with, got 6"):
        again(stopped.value.run_dir, options, verify_steps=6)


def test_weights_that_have_to_be_trained_first_are_whole_runs_of_their_own(
    small: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    high = replace(small, {"name": "high", "schedule.steps": 4})
    low = replace(
        high,
        {
            "name": "low",
            "expert": tiny_low.SPEC.expert,
            "start_from": TrainedBy(spec=high),
            "runtime.build_missing": True,
        },
    )
    stored = mm_train.train(low, options).run_dir
    runs = RunOptions(tmp_path / "elsewhere")
    made = again(stored, runs, verify_steps=2)
    assert made.comparison.identical
    (trained,) = open_index(runs.runs_dir).list()
    assert (trained.name, trained.status) == ("high", RunStatus.FINISHED)


@pytest.fixture
def generated(options: RunOptions) -> Iterator[Path]:
    """The run folder of a generation with drawn weights."""
    model = {
        "model.hidden_size": 32,
        "model.num_attention_heads": 2,
        "model.ffn_dim": 32,
        "model.num_layers": 1,
    }
    spec = replace(
        tiny.SPEC,
        {
            **model,
            "name": "generated",
            "high_noise": RandomWeights(seed=1),
            "low_noise": RandomWeights(seed=2),
            "sampler.steps": 2,
            "samples.prompts": tiny.SPEC.samples.prompts[:2],
            "samples.seeds": (1,),
            "runtime.device": "cpu",
        },
    )
    folder = runners.run(spec, options).run_dir
    yield folder
    shutil.rmtree(folder)


def test_videos_and_scores_are_reproduced(generated: Path, options: RunOptions) -> None:
    made = again(generated, options)
    assert made.comparison.identical
    assert told(made.comparison) == "2 videos, score (colour, shape, direction)"
    with pytest.raises(UserError, match="--verify-steps: applies to trainings"):
        again(generated, options, verify_steps=1)


def test_other_frames_are_a_difference_and_another_comment_is_none(
    generated: Path, options: RunOptions
) -> None:
    first, second = sorted((generated / "samples").glob("*.mp4"))
    result = json.loads((generated / "result.json").read_text())
    result["score"]["shape"] = 0.25
    (generated / "result.json").write_text(json.dumps(result))
    retitled, frames = generated / "retitled.mp4", torch.arange(256 * 3).remainder(256).to(torch.uint8)
    frames = frames.view(1, 16, 16, 3).expand(17, -1, -1, -1)
    for comment in ("a", "b" * 1000):
        write_mp4(retitled, frames, 8, comment=comment)
        assert read_comment(retitled) == comment
        retitled.rename(generated / f"{comment[0]}.mp4")
    assert frames_digest(generated / "a.mp4") == frames_digest(generated / "b.mp4")
    write_mp4(first, 255 - frames, 8, comment=read_comment(first))
    second.unlink()

    video, missing, score = told_differences(again(generated, options))
    assert video.startswith(f"video {first.name}: frames ")
    assert missing.startswith(f"video {second.name}: frames none -> ")
    assert score.startswith("score: shape 0.25 -> ")
