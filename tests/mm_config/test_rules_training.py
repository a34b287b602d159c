"""Rules on a training: number formats, steps, recordings, validation, and what a run goes on with."""

from typing import Any

import pytest

from mm_config import replace
from mm_config.specs.data import Cache, PrecomputedSpec
from mm_config.specs.datasets import ManifestSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.dtype import Dtype
from mm_config.specs.lora import LoraSpec
from mm_config.specs.monitoring import MemorySnapshotSpec, ProfilerSpec, ValidationSpec
from mm_config.specs.optim import Decay, EmaSpec, MuonSpec
from mm_config.specs.parallel import AttentionImpl, CompileBackend, CompileMode
from mm_config.specs.train import StartMode
from mm_config.specs.weights import RandomWeights, ReleasedWeights, TrainedBy
from tests.mm_config.breaking import TRAIN, WAN_1_3B, WAN_HIGH, found, only

F32, BF16, F16 = Dtype.FLOAT32, Dtype.BFLOAT16, Dtype.FLOAT16


@pytest.mark.parametrize(
    ("compute", "reduce", "output"),
    [(F32, F32, None), (F32, F32, F32), (BF16, F32, None), (BF16, BF16, BF16), (BF16, F32, F32)],
)
def test_formats_that_go_together(compute: Dtype, reduce: Dtype, output: Dtype | None) -> None:
    changes = {"precision.compute": compute, "precision.reduce": reduce, "precision.output": output}
    assert found(TRAIN, changes) == {}


@pytest.mark.parametrize(
    ("changes", "path", "part"),
    [
        ({"precision.compute": F16}, "compute", "without loss scaling; choose bfloat16 or float32"),
        ({"precision.compute": BF16, "precision.reduce": F16}, "reduce", "choose bfloat16 or float32"),
        ({"precision.compute": BF16, "precision.output": F16}, "output", "choose bfloat16 or float32"),
        ({"precision.reduce": BF16}, "reduce", "narrower than compute float32; choose float32"),
        ({"precision.output": BF16}, "output", "narrower than compute float32; choose None or float32"),
    ],
)
def test_formats_that_do_not(changes: dict[str, Any], path: str, part: str) -> None:
    only(TRAIN, changes, f"precision.{path}", part)


def test_ranks_share_encoders_that_are_needed_between_steps() -> None:
    assert found(WAN_1_3B, {"runtime.shard_encoders": True, "data.cache": Cache.NONE}) == {}
    cached = {"runtime.shard_encoders": True, "data.cache": Cache.LATENTS}
    only(WAN_1_3B, cached, "runtime.shard_encoders", "data.cache = latents encodes before, whole on each")
    before = PrecomputedSpec(name="features", text=True, latents=True)
    kept = found(WAN_1_3B, {"runtime.shard_encoders": True, "data.precomputed": before})
    assert kept["spec.runtime.shard_encoders"] == "is True, but everything is precomputed; set it to False"


def test_words_that_name_devices() -> None:
    assert found(TRAIN, {"runtime.device": "gpu"}) == {
        "spec.runtime.device": "must be one of auto, cpu, cuda, npu, got 'gpu'; did you mean cuda?",
    }


def test_an_implementation_of_attention_is_one_of_the_device() -> None:
    flash, npu = AttentionImpl.FLASH_3, AttentionImpl.NPU
    for device, attention in (("auto", flash), ("cuda", flash), ("auto", npu), ("npu", npu)):
        assert found(WAN_1_3B, {"runtime.device": device, "runtime.attention": attention}) == {}
    for device, attention, wanted in (("cpu", flash, "cuda"), ("npu", flash, "cuda"), ("cuda", npu, "npu")):
        changes = {"runtime.device": device, "runtime.attention": attention}
        only(WAN_1_3B, changes, "runtime.attention", f"is for {wanted}, but device is {device}; choose auto")


def test_fast_attention_takes_16_bits_and_trains() -> None:
    changes = {"runtime.attention": AttentionImpl.CUDNN}
    only(TRAIN, changes, "runtime.attention", "takes 16-bit values, but spec.precision.compute is float32")
    message = "is sage, which is not exact; choose auto, or one of the exact ones"
    only(WAN_1_3B, {"runtime.attention": AttentionImpl.SAGE}, "runtime.attention", message)


def test_presets_are_those_of_inductor() -> None:
    changes = {"compile.mode": CompileMode.MAX_AUTOTUNE}
    assert found(TRAIN, changes) == {}
    only(TRAIN, {**changes, "compile.backend": CompileBackend.EAGER}, "compile.mode", "a preset of inductor")


def test_a_short_trial_of_a_long_schedule_is_allowed() -> None:
    assert found(TRAIN, {"schedule.steps": 10, "schedule.warmup_steps": 100}) == {}


def test_each_decay_has_its_settings() -> None:
    wsd = {"schedule.decay": Decay.WSD}
    path = "schedule.decay_steps"
    assert (
        found(TRAIN, {**wsd, path: 450}) == found(TRAIN, {**wsd, path: 1, "schedule.final_ratio": 0.1}) == {}
    )
    only(TRAIN, wsd, path, "is missing, but decay is wsd; give 1 to 450")
    only(TRAIN, {**wsd, path: 451}, path, "is 451, above steps 450")
    only(TRAIN, {path: 10}, path, "which only decay = wsd uses; leave it at None")
    constant = {"schedule.decay": Decay.CONSTANT, "schedule.final_ratio": 0.1}
    only(TRAIN, constant, "schedule.final_ratio", "leave it at 0.0")
    ratio = {"schedule.warmup_ratio": 0.1}
    assert found(TRAIN, ratio) == {}
    only(TRAIN, {**ratio, "schedule.warmup_steps": 0}, "schedule.warmup_ratio", "leave it at 0.0")


@pytest.mark.parametrize("bits", [16, 9])
def test_moments_are_whole_or_a_byte(bits: int) -> None:
    assert found(TRAIN, {"optim.state_bits": 8}) == {}
    only(TRAIN, {"optim.state_bits": bits}, "optim.state_bits", f"must be 8 or 32, got {bits}")


def test_checkpoints_that_are_kept_are_written() -> None:
    every = {"checkpoint.every_steps": 100}
    assert found(TRAIN, {**every, "checkpoint.keep_every": 300}) == {}
    only(TRAIN, {**every, "checkpoint.keep_every": 250}, "checkpoint.keep_every", "nearest: 200 or 300")


def test_what_begins_begins_within_the_run() -> None:
    assert found(TRAIN, {"ema": EmaSpec(start_step=449)}) == {}
    only(TRAIN, {"ema": EmaSpec(start_step=450)}, "ema.start_step", "not below spec.schedule.steps 450")
    for name, cls in (("profiler", ProfilerSpec), ("memory_snapshot", MemorySnapshotSpec)):
        assert found(TRAIN, {name: cls(start_step=449, end_step=450)}) == {}
        late = {name: cls(start_step=449, end_step=451)}
        only(TRAIN, late, f"{name}.end_step", "is 451, above spec.schedule.steps 450")
        empty = {name: cls(start_step=5, end_step=5)}
        only(TRAIN, empty, f"{name}.end_step", "start_step is 5; at least 6")


def test_recordings_are_told_apart() -> None:
    only(TRAIN, {"profiler": ProfilerSpec(ranks=(0, 1, 0))}, "profiler.ranks.2", "0 is listed twice")
    wrong = {"profiler": ProfilerSpec(npu_aic_metrics="pipeUtilization")}
    only(TRAIN, wrong, "profiler.npu_aic_metrics", "did you mean PipeUtilization?")
    for folder in ("/tmp/x", "../x", "a/../../b", "."):
        changes = {"memory_snapshot": MemorySnapshotSpec(folder=folder)}
        only(TRAIN, changes, "memory_snapshot.folder", "must lie inside the run folder", repr(folder))


def test_validation_sees_the_experts_noise_levels_and_some_clips() -> None:
    assert found(TRAIN, {"validation": ValidationSpec()}) == {}
    low = {"validation": ValidationSpec(sigmas=(0.1, 0.5))}
    only(TRAIN, low, "validation.sigmas", "high_noise", "at or above spec.diffusion.boundary 0.875")
    assert found(TRAIN, {**low, "expert": Expert.LOW_NOISE}) == {}
    high = {"validation": ValidationSpec(sigmas=(0.875, 0.9)), "expert": Expert.LOW_NOISE}
    only(TRAIN, high, "validation.sigmas", "low_noise", "below spec.diffusion.boundary 0.875")
    assert found(WAN_1_3B, low) == {}
    twice = {"validation": ValidationSpec(sigmas=(0.9, 0.1, 0.9))}
    only(TRAIN, twice, "validation.sigmas.2", "0.9 is listed twice")
    few = {"validation": ValidationSpec(holdout=0.001)}
    only(TRAIN, few, "validation.holdout", "of 512 clips leaves none", "from 0.00195")
    assert found(WAN_1_3B, few) == {}


LONGER = replace(
    TRAIN,
    {"start_from": TrainedBy(spec=TRAIN), "start_mode": StartMode.EXACT, "schedule.steps": 900},
)
AGAIN = replace(TRAIN, {"start_from": TrainedBy(spec=TRAIN), "start_mode": StartMode.RESTART})


@pytest.mark.parametrize("mode", [StartMode.EXACT, StartMode.RESTART])
@pytest.mark.parametrize("start", [ReleasedWeights(name="x"), RandomWeights()])
def test_only_a_training_has_an_optimizers_state(mode: StartMode, start: Any) -> None:
    changes = {"start_mode": mode, "start_from": start}
    only(
        TRAIN,
        changes,
        "start_mode",
        f"is {mode.value}",
        "which has none; choose weights, or start from TrainedBy",
    )


def test_an_exact_continuation_is_longer_and_otherwise_equal() -> None:
    assert found(LONGER, {}) == {}
    allowed = {"schedule.decay": Decay.CONSTANT, "runtime.micro_batch_size": 4, "checkpoint.every_steps": 7}
    assert found(LONGER, allowed) == {}
    only(LONGER, {"schedule.steps": 450}, "schedule.steps", "has made 450; at least 451")


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"data.batch_size": 16}, "data.batch_size", "32, but spec.data.batch_size is 16"),
        ({"data.caption_dropout": 0.0}, "data.caption_dropout", "0.1, but"),
        ({"seed": 1}, "seed", "0, but spec.seed is 1"),
        ({"optim.lr": 1e-4}, "optim.lr", "0.003, but"),
        ({"optim": MuonSpec()}, "optim", "adamw, but spec.optim is muon"),
        ({"schedule.warmup_steps": 9}, "schedule.warmup_steps", "5, but"),
        ({"diffusion.shift": 12.0}, "diffusion.shift", "5.0, but"),
        ({"expert": Expert.LOW_NOISE}, "expert", "high_noise, but spec.expert is low_noise"),
        ({"frozen": ("*.bias",)}, "frozen", "(), but spec.frozen is ('*.bias')"),
        ({"lora": LoraSpec()}, "lora", "None, but spec.lora is lora"),
        ({"ema": EmaSpec()}, "ema", "None, but spec.ema is ema"),
        ({"precision.compute": BF16}, "precision.compute", "float32, but"),
        ({"text_encoder.ngrams": 1}, "text_encoder.ngrams", "2, but"),
    ],
)
def test_an_exact_continuation_names_each_field_that_differs(
    changes: dict[str, Any], field: str, said: str
) -> None:
    path = f"start_from.spec.{field}"
    only(LONGER, changes, path, f"was trained with {said}", "; spec.start_mode exact needs them equal")


def test_an_exact_continuation_keeps_the_same_clips_out() -> None:
    only(LONGER, {"validation": ValidationSpec()}, "validation", "keeps 0.01 of the clips", "before kept 0.0")
    held_out = replace(TRAIN, "validation", ValidationSpec())
    again = replace(
        LONGER, {"start_from": TrainedBy(spec=held_out), "validation": ValidationSpec(sigmas=(0.9,))}
    )
    assert found(again, {}) == {}


def test_a_restart_takes_moments_of_the_same_parameters() -> None:
    anew = {
        "data.batch_size": 16,
        "optim.lr": 1e-4,
        "schedule.steps": 10,
        "seed": 3,
        "ema": EmaSpec(start_step=1),
    }
    assert found(AGAIN, anew) == {}
    wrong = "; spec.start_mode restart needs them equal"
    only(AGAIN, {"frozen": ("*.bias",)}, "start_from.spec.frozen", wrong)
    only(AGAIN, {"lora": LoraSpec()}, "start_from.spec.lora", wrong)
    only(AGAIN, {"optim.state_bits": 8}, "start_from.spec.optim.state_bits", "32, but", wrong)
    only(
        AGAIN,
        {"optim": MuonSpec()},
        "start_from.spec.optim",
        "is adamw, whose state muon",
        "choose start_mode weights",
    )


def test_a_restart_of_adapters_keeps_their_form() -> None:
    lora = replace(WAN_HIGH, "lora", LoraSpec())
    again = replace(lora, {"start_from": TrainedBy(spec=lora), "start_mode": StartMode.RESTART})
    assert found(again, {"lora.dropout": 0.1}) == {}
    only(again, {"lora.rank": 8}, "start_from.spec.lora.rank", "was trained with 16, but spec.lora.rank is 8")


def test_weights_alone_carry_nothing_over() -> None:
    changes = {
        "start_from": TrainedBy(spec=TRAIN),
        "optim": MuonSpec(),
        "data.dataset": ManifestSpec(name="x"),
    }
    assert found(TRAIN, changes) == {}
