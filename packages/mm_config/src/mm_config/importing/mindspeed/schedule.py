"""What scripts and native YAML files say of steps, batches, learning rates and weights to start from."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from mm_config.importing.facts import Fact, typed
from mm_config.importing.mindspeed.files import Files, Known, is_count
from mm_config.importing.mindspeed.keys import FLAG, NATIVE
from mm_config.importing.mindspeed.places import in_words, is_placeholder
from mm_config.importing.readings import Reading, follows, given, refused, said, silent, tried
from mm_config.importing.values import real
from mm_config.importing.verdict import Verdict
from mm_config.specs.diffusion import Expert
from mm_config.specs.optim import Decay
from mm_config.specs.weights import RandomWeights, ReleasedWeights, Weights

_LOADS = ((FLAG, "--load"), (FLAG, "--load-base-model"), (NATIVE, "training.load"))
_SPLITS = ("--tensor-model-parallel-size", "--pipeline-model-parallel-size", "--context-parallel-size")
WEIGHTS = "weights"
"""Logical name of weights that no published family has."""


def learning_rate(files: Files, known: Known) -> Iterator[Reading]:
    """`schedule`: what is a share of the peak learning rate, or of the steps."""
    for condition, kind, share, peak, target in (
        ("decay", FLAG, "--min-lr", "--lr", "schedule.final_ratio"),
        ("warmup", FLAG, "--lr-warmup-init", "--lr", "schedule.warmup_ratio"),
        ("native_decay", NATIVE, "training.lr_min", "training.lr", "schedule.final_ratio"),
        ("native_warmup", NATIVE, "training.lr_start", "training.lr", "schedule.warmup_ratio"),
    ):
        fact = files.fact(kind, share)
        if fact is not None and files.holds(condition):
            yield _share(fact, files.get(kind, peak), target)
    fact, steps = (
        files.fact(NATIVE, "training.lr_warmup_ratio"),
        files.get(NATIVE, "training.train_iters", 5000),
    )
    if fact is not None:
        ratio, wrong = tried(fact, real)
        if wrong or not 0 <= ratio <= 1:
            yield refused(fact, "expected a share of the steps")
        else:
            yield given(fact, "schedule.warmup_steps", int(ratio * steps))
    if files.has(NATIVE) and files.fact(NATIVE, "training.lr_decay_style") is None:
        yield silent("training.lr_decay_style", "schedule.decay", Decay.CONSTANT)


def _share(fact: Fact, peak: object, target: str) -> Reading:
    value, wrong = tried(fact, real)
    if wrong:
        return wrong[0]
    if not isinstance(peak, float) or peak <= 0 or not 0 <= value <= peak:
        return refused(fact, f"is no part of the peak learning rate {peak}")
    # As people divide the decimals that are written: 1e-6 of 1e-5 is 0.1.
    return given(fact, target, float(Decimal(str(value)) / Decimal(str(peak))))


def batches(files: Files, known: Known) -> Iterator[Reading]:
    """`data.batch_size` where the script leaves it to the micro-batch, and who shares a noise level."""
    fact, micro, ranks = (
        files.fact(FLAG, "--micro-batch-size"),
        files.get(FLAG, "--micro-batch-size"),
        files.world_size,
    )
    if files.fact(FLAG, "--global-batch-size") is None and is_count(micro) and ranks:
        together = 1
        for degree in (files.raw(FLAG, flag, 1) for flag in _SPLITS):
            together *= degree if is_count(degree) else 1
        batch = micro * max(ranks // together, 1)
        text = f"data.batch_size = {batch}: one micro-batch per group of ranks"
        yield given("--global-batch-size", "data.batch_size", batch, text)
    if fact is not None and is_count(micro, 2):
        text = f"diffusion.clips_per_level = {micro}: the clips of a micro-batch share a noise level"
        yield follows("--micro-batch-size", "diffusion.clips_per_level", micro, text)
    fact = files.fact(NATIVE, "training.gradient_accumulation_steps")
    if fact is None:
        return
    micro = files.get(NATIVE, "training.micro_batch_size", 1)
    if not is_count(fact.value):
        yield refused(fact, "expected a number of steps")
        return
    batch = micro * typed(fact)
    text = f"data.batch_size = {batch} for one data-parallel rank; multiply it by their number"
    yield given(fact, "data.batch_size", batch, text)


def encoders(files: Files, known: Known) -> Iterator[Reading]:
    """`runtime.offload_encoders`: encoding ahead moves the text encoder away in between."""
    fact = files.fact(files.kind, "encoder_offload_interval")
    if fact is not None and is_count(fact.value, 2):
        yield silent(fact, "runtime.offload_encoders", True)


def start(files: Files, known: Known) -> Iterator[Reading]:
    """`start_from`, or `high_noise` in generation: the weights of `--load`, without it random ones."""
    released = known.family.low_noise if known.expert is Expert.LOW_NOISE else known.family.high_noise
    if files.generation:
        released = known.family.high_noise
    target = "high_noise" if files.generation else "start_from"
    facts = [fact for kind, path in _LOADS if (fact := files.fact(kind, path)) is not None]
    if not facts and _starts_anew(files, released):
        yield given("--load", target, RandomWeights(), f"{target}: random weights, for nothing is loaded")
    for other in facts[1:]:
        yield said(
            Verdict.CONFLICT,
            other,
            f"{facts[0].path} names the weights that a run starts from, and that holds",
        )
    if not facts:
        return
    fact, weights = facts[0], released or ReleasedWeights(name=WEIGHTS)
    before = "" if fact.source.kind == NATIVE else ", before mm-convert"
    yield silent(fact, target, weights)
    if is_placeholder(fact.value):
        where = f": {weights.name}" if isinstance(weights, ReleasedWeights) else ""
        text = (
            f"is no path: {target} is open{where}; name the folder by --location, or other weights in the "
            "spec"
        )
        yield said(Verdict.OPEN, fact, text)
        return
    if released is None:
        yield Reading(fact, Verdict.MAPPED, "", f"--location {WEIGHTS}", str(fact.value))
    yield said(Verdict.MAPPED, fact, f"{target}: {in_words(weights)}{before}; {_warning(files.generation)}")


def _starts_anew(files: Files, released: Weights | None) -> bool:
    if files.generation:
        return released is None
    return files.has(FLAG) or (files.has(NATIVE) and files.fact(NATIVE, "model.model_name_or_path") is None)


def _warning(generation: bool) -> str:
    if generation:
        return "weights of a training of yours are named by TrainedBy(...)"
    return "a wrong path starts from random weights there with a line in the log, and is an error here"
