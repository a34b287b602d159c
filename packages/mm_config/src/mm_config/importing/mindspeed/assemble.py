"""Facts to specs."""

from __future__ import annotations

from typing import Any

from mm_config.importing.mindspeed import base
from mm_config.importing.mindspeed.book import Book
from mm_config.importing.mindspeed.clips import read_clips
from mm_config.importing.mindspeed.conditions import WHY_NOT, conditions
from mm_config.importing.mindspeed.conflicts import tell_conflicts
from mm_config.importing.mindspeed.locations import read_locations
from mm_config.importing.mindspeed.network import FAMILIES, family_of, release_of
from mm_config.importing.mindspeed.noise import expert_of, place_boundary
from mm_config.importing.mindspeed.prompts import read_generation
from mm_config.importing.mindspeed.rows import FLAG
from mm_config.importing.mindspeed.schedule import read_batch, read_learning_rate, read_start, world_size
from mm_config.importing.mindspeed.sharding import (
    read_adapters,
    read_context_parallel,
    read_precision,
    read_sharding,
)
from mm_config.importing.verdict import Verdict
from mm_config.npu.variables import VARIABLES
from mm_config.rules import problems as rule_problems
from mm_config.rules.sizes import cells
from mm_config.schema.errors import Problem, SpecError, UserError
from mm_config.schema.evolve import replace
from mm_config.specs.data import PrecomputedSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.family import Family
from mm_config.specs.infer import InferSpec
from mm_config.specs.lora import LoraSpec
from mm_config.specs.monitoring import MemorySnapshotSpec, ProfilerSpec
from mm_config.specs.npu import NpuSpec
from mm_config.specs.optim import EmaSpec, MuonSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import ReleasedWeights

MODEL, INFERENCE, ENVIRONMENT = "model.json", "inference_model.json", "environment variable"


def training(book: Book) -> tuple[str, TrainSpec]:
    """The family's name and the training that the facts tell.

    Raises:
        UserError: All values that can't be imported, each with its file, line and key.
    """
    expert = expert_of(book)
    name, family = family_of(book, MODEL, expert is not Expert.SINGLE)
    book.conditions = conditions(book, MODEL)
    spec: Any = base.training(family, expert)
    spec = replace(spec, {**_parts(book, spec), **_npu(book)})
    book.go_through(WHY_NOT)
    place_boundary(book, family, expert)
    read_clips(book, max(cells(spec.model, spec.autoencoder)))
    read_context_parallel(book, "parallel")
    read_sharding(book)
    read_precision(book)
    read_adapters(book)
    read_learning_rate(book)
    read_batch(book)
    released = family.low_noise if expert is Expert.LOW_NOISE else family.high_noise
    read_start(book, released, "start_from")
    interval = book.changes.get("runtime.encode_ahead", 1)
    if isinstance(interval, int) and interval > 1:
        book.set("runtime.offload_encoders", True, book.fact(MODEL, "encoder_offload_interval"))
    return name, _finished(book, spec, MODEL, family)


def generation(book: Book) -> tuple[str, InferSpec]:
    """The family's name and the generation that the facts tell.

    Raises:
        UserError: All values that can't be imported, each with its file, line and key.
    """
    book.conditions = conditions(book, INFERENCE)
    experts = book.conditions["experts"] or not book.has(INFERENCE, "predictor.")
    name, family = family_of(book, INFERENCE, experts)
    if family.high_noise is None:
        unnamed = ReleasedWeights(name="weights")
        spec: Any = family.infer(high_noise=unnamed, dtype=base.generation(FAMILIES["wan21.T2V_14B"]).dtype)
    else:
        spec = base.generation(family)
    spec = replace(spec, _npu(book))
    book.go_through(WHY_NOT)
    read_context_parallel(book, "runtime.parallel")
    read_start(book, family.high_noise, "high_noise")
    read_generation(book, family)
    return name, _finished(book, spec, INFERENCE, family)


def _npu(book: Book) -> dict[str, Any]:
    """The part of the runtime that holds an NPU's variables, where the script sets one."""
    given = any(book.fact(ENVIRONMENT, variable.name) for variable in VARIABLES)
    return {"runtime.npu": NpuSpec()} if given else {}


def _parts(book: Book, spec: TrainSpec) -> dict[str, Any]:
    """Optional parts of the spec that the facts ask for, before their fields are filled in."""
    found: dict[str, Any] = {}
    if book.conditions["lora"]:
        found["lora"] = LoraSpec()
    if book.conditions["ema"]:
        found["ema"] = EmaSpec()
    for condition, path, part, kind in (
        ("profile", "profile.enable", "profiler", ProfilerSpec()),
        ("memory", "memory_profile.enable", "memory_snapshot", MemorySnapshotSpec()),
    ):
        fact = book.fact("tools.json", path)
        if book.conditions[condition]:
            found[part] = kind
            book.mark(fact, Verdict.MAPPED, f"{part} = {type(kind).__name__}(...)")
        else:
            book.mark(fact, Verdict.MAPPED, f"{part} = None")
    latents, text = not book.conditions["raw"], not book.conditions["text"]
    precomputed = "None"
    if latents or text:
        found["data.precomputed"] = PrecomputedSpec(name=base.FEATURES, latents=latents, text=text)
        precomputed = f"PrecomputedSpec(latents={latents}, text={text})"
    for kind, path in (
        ("data.json", "dataset_param.dataset_type"),
        (MODEL, "load_video_features"),
        (MODEL, "load_text_features"),
    ):
        fact = book.fact(kind, path)
        if fact is None:
            continue
        if kind == MODEL and not isinstance(fact.value, bool):
            book.refuse(fact, "expected true or false")
        elif kind == "data.json" and fact.value not in ("t2v", "feature"):
            book.refuse(fact, "is not read by Wan's training: only t2v (clips) and feature can be imported")
        else:
            book.mark(fact, Verdict.MAPPED, f"data.precomputed = {precomputed}")
    _optimizer(book, found)
    return found


def _optimizer(book: Book, found: dict[str, Any]) -> None:
    fact, selection = book.fact(FLAG, "--optimizer"), book.fact(FLAG, "--optimizer-selection")
    if fact is not None and fact.value == "muon":
        found["optim"] = MuonSpec(betas=(0.9, 0.999))
        book.mark(fact, Verdict.MAPPED, "optim = MuonSpec(...)")
    elif fact is not None and fact.value != "adam":
        book.refuse(fact, "can't be said here: only adam, muon")
    else:
        book.mark(fact, Verdict.MAPPED, "optim = AdamWSpec(...)")
    if selection is None:
        return
    if selection.value in ("fused_torch_adamw", "fused_adamw"):
        book.mark(selection, Verdict.MAPPED, "ema = None: AdamW; its implementation is the device's fastest")
    elif selection.value == "fused_ema_adamw":
        book.mark(selection, Verdict.MAPPED, "ema = EmaSpec(...)")
    else:
        book.refuse(selection, "can't be said here: only fused_adamw, fused_torch_adamw, fused_ema_adamw")


def _finished(book: Book, spec: Any, kind: str, family: Family) -> Any:
    """The spec with all values put in, which keeps every rule."""
    _drop_shadowed(book)
    read_locations(book, kind, release_of(family))
    made = _replaced(book, spec)
    if made is not None:
        tell_conflicts(book, made, kind)
        found = rule_problems(made, world_size(book))
        book.problems += [_with_line(book, problem) for problem in found]
    if book.problems:
        raise UserError(dict.fromkeys(book.problems))
    return made


def _drop_shadowed(book: Book) -> None:
    """The older form of tile sizes names both numbers, the newer each: together they are one too many."""
    for name in ("tile_size", "tile_stride"):
        whole = f"autoencoder.{name}"
        if whole in book.changes and any(f"{whole}.{index}" in book.changes for index in (0, 1)):
            fact = book.origins[whole]
            del book.changes[whole]
            book.mark(fact, Verdict.CONFLICT, "the tile is also given in pixels, and those hold")


def _replaced(book: Book, spec: Any) -> Any:
    try:
        return replace(spec, book.changes)
    except SpecError as error:
        book.problems += [_with_line(book, problem) for problem in error.problems]
        return None


def _with_line(book: Book, problem: Problem) -> Problem:
    """A problem of the spec with the line that it comes from, or that of the nearest value beside it."""
    path = problem.path.removeprefix("spec.").split(".")
    nearest = max(book.origins, key=lambda target: _shared(target.split("."), path), default=None)
    if nearest is None or not _shared(nearest.split("."), path):
        files = ", ".join(dict.fromkeys(str(fact.source.file) for fact in book.facts))
        return Problem(files, f"{problem.path} {problem.message}")
    fact = book.origins[nearest]
    return Problem(fact.place, f"{fact.path}: {problem.path} {problem.message}")


def _shared(one: list[str], other: list[str]) -> int:
    """How many names two paths begin with in common."""
    same = [a == b for a, b in zip(one, other, strict=False)]
    return same.index(False) if False in same else len(same)
