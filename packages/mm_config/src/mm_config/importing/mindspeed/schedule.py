"""What scripts and native YAML files say of steps, batches, learning rates and weights to start from."""

from __future__ import annotations

from mm_config.importing.facts import Fact
from mm_config.importing.mindspeed.book import Book
from mm_config.importing.mindspeed.rows import FLAG
from mm_config.importing.values import real
from mm_config.importing.verdict import Verdict
from mm_config.specs.kinds import Weights
from mm_config.specs.optim import Decay
from mm_config.specs.weights import RandomWeights, ReleasedWeights

NATIVE = "native.yaml"
_LOADS = ((FLAG, "--load"), (FLAG, "--load-base-model"), (NATIVE, "training.load"))
WEIGHTS = "weights"
"""Logical name of weights that no published family has."""


def world_size(book: Book) -> int | None:
    """Ranks that the script starts; None without a script."""
    local, nodes = book.raw(FLAG, "--nproc_per_node"), book.raw(FLAG, "--nnodes", 1)
    if not isinstance(local, int) or not isinstance(nodes, int) or local < 1 or nodes < 1:
        return None
    return local * nodes if local * nodes < 2**31 else None


def read_learning_rate(book: Book) -> None:
    """Puts what is a share of the peak learning rate, or of the steps, into the spec."""
    peak = book.get(FLAG, "--lr")
    if book.conditions["decay"]:
        _share(book, book.fact(FLAG, "--min-lr"), peak, "schedule.final_ratio")
    if book.conditions["warmup"]:
        _share(book, book.fact(FLAG, "--lr-warmup-init"), peak, "schedule.warmup_ratio")
    if book.has(NATIVE):
        _native(book)


def _share(book: Book, fact: Fact | None, peak: object, target: str) -> None:
    value = book.read(fact, real)
    if fact is None or value is None:
        return
    if not isinstance(peak, float) or peak <= 0 or not 0 <= value <= peak:
        book.refuse(fact, f"is no part of the peak learning rate {peak}")
        return
    book.map(fact, target, value / peak)


def _native(book: Book) -> None:
    peak = book.get(NATIVE, "training.lr")
    if book.conditions["native_decay"]:
        _share(book, book.fact(NATIVE, "training.lr_min"), peak, "schedule.final_ratio")
    if book.conditions["native_warmup"]:
        _share(book, book.fact(NATIVE, "training.lr_start"), peak, "schedule.warmup_ratio")
    fact, steps = (
        book.fact(NATIVE, "training.lr_warmup_ratio"),
        book.get(NATIVE, "training.train_iters", 5000),
    )
    if fact is not None:
        try:
            book.map(fact, "schedule.warmup_steps", int(real(fact.value) * steps))
        except (ValueError, OverflowError):
            book.refuse(fact, "expected a share of the steps")
    if "schedule.decay" not in book.changes and book.fact(NATIVE, "training.lr_decay_style") is None:
        book.set("schedule.decay", Decay.CONSTANT)


def read_batch(book: Book) -> None:
    """Puts the global batch into the spec where the script leaves it to the micro-batch."""
    micro = book.get(FLAG, "--micro-batch-size")
    ranks = world_size(book)
    degrees = [
        book.raw(FLAG, flag, 1)
        for flag in (
            "--tensor-model-parallel-size",
            "--pipeline-model-parallel-size",
            "--context-parallel-size",
        )
    ]
    if book.fact(FLAG, "--global-batch-size") is None and micro and ranks:
        together = 1
        for degree in degrees:
            together *= degree if isinstance(degree, int) and degree > 0 else 1
        batch = micro * max(ranks // together, 1)
        book.set("data.batch_size", batch, book.fact(FLAG, "--micro-batch-size"))
        book.say(
            Verdict.DEFAULT,
            "--global-batch-size",
            f"data.batch_size = {batch}: one micro-batch per group of ranks",
        )
    if isinstance(micro, int) and micro > 1:
        book.set("diffusion.clips_per_level", micro)
        book.say(
            Verdict.DERIVED,
            "--micro-batch-size",
            f"diffusion.clips_per_level = {micro}: the clips of a micro-batch share a noise level",
        )
    fact = book.fact(NATIVE, "training.gradient_accumulation_steps")
    if fact is not None:
        micro = book.get(NATIVE, "training.micro_batch_size", 1)
        if not isinstance(fact.value, int) or isinstance(fact.value, bool) or not 0 < fact.value < 2**31:
            book.refuse(fact, "expected a number of steps")
        else:
            book.set("data.batch_size", micro * fact.value, fact)
            book.mark(
                fact,
                Verdict.MAPPED,
                f"data.batch_size = {micro * fact.value} for one data-parallel rank; multiply it by their "
                "number",
            )


def read_start(book: Book, released: Weights | None, target: str) -> None:
    """Puts the weights of `--load` into the spec; without it MindSpeed-MM starts from random ones.

    Args:
        book: The facts.
        released: The family's published weights of this network, if there are any.
        target: `start_from` in training, `high_noise` in generation.
    """
    found = (book.fact(kind, path) for kind, path in _LOADS)
    fact = next((fact for fact in found if fact is not None), None)
    if fact is None:
        if _starts_anew(book, released):
            book.set(target, RandomWeights())
            book.say(Verdict.DEFAULT, "--load", f"{target}: random weights, for nothing is loaded")
        return
    for kind, path in _LOADS:
        other = book.fact(kind, path)
        if other is not None and other is not fact:
            text = f"{fact.path} names the weights that a run starts from, and that holds"
            book.mark(other, Verdict.CONFLICT, text)
    weights = released or ReleasedWeights(name=WEIGHTS)
    book.set(target, weights, fact)
    if released is None:
        book.paths[WEIGHTS] = str(fact.value)
    before = "" if fact.source.kind == NATIVE else ", before mm-convert"
    book.mark(fact, Verdict.MAPPED, f"{target}: {in_words(weights)}{before}; {_warning(book.generation)}")


def _starts_anew(book: Book, released: Weights | None) -> bool:
    if book.generation:
        return released is None
    return book.has(FLAG) or (book.has(NATIVE) and book.fact(NATIVE, "model.model_name_or_path") is None)


def in_words(weights: Weights) -> str:
    """A release and its folder."""
    if isinstance(weights, ReleasedWeights):
        return f"{weights.name} {weights.subfolder}".rstrip()
    return "random weights"


def _warning(generation: bool) -> str:
    if generation:
        return "weights of a training of yours are named by TrainedBy(...)"
    return "a wrong path starts from random weights there with a line in the log, and is an error here"
