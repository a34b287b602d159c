"""Optional parts of a training that files ask for, before their fields are filled in."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.importing.mindspeed import base
from mm_config.importing.mindspeed.files import Files, Known
from mm_config.importing.mindspeed.keys import DATA, ENVIRONMENT, FLAG, MODEL, TOOLS
from mm_config.importing.readings import Reading, refused, said, silent
from mm_config.importing.verdict import Verdict
from mm_config.npu.variables import VARIABLES
from mm_config.specs.data import PrecomputedSpec
from mm_config.specs.lora import LoraSpec
from mm_config.specs.monitoring import MemorySnapshotSpec, ProfilerSpec
from mm_config.specs.npu import NpuSpec
from mm_config.specs.optim import EmaSpec, MuonSpec

_TOOLS = (
    ("profile", "profile.enable", "profiler", ProfilerSpec()),
    ("memory", "memory_profile.enable", "memory_snapshot", MemorySnapshotSpec()),
)
_OPTIMIZERS = ("adam", "muon")
_SELECTIONS = ("fused_adamw", "fused_torch_adamw", "fused_ema_adamw")


def npu(files: Files, known: Known) -> Iterator[Reading]:
    """`runtime.npu`, which holds an NPU's variables, where the script sets one."""
    if any(files.fact(ENVIRONMENT, variable.name) for variable in VARIABLES):
        yield silent("environment", "runtime.npu", NpuSpec())


def tools(files: Files, known: Known) -> Iterator[Reading]:
    """`profiler` and `memory_snapshot`."""
    for condition, path, target, part in _TOOLS:
        fact, on = files.fact(TOOLS, path), files.holds(condition)
        if on:
            yield silent(fact or path, target, part)
        if fact is not None:
            text = f"{target} = {type(part).__name__}(...)" if on else f"{target} = None"
            yield said(Verdict.MAPPED, fact, text)


def precomputed(files: Files, known: Known) -> Iterator[Reading]:
    """`data.precomputed`: features that are read instead of clips or captions."""
    latents, text = not files.holds("raw"), not files.holds("text")
    value = PrecomputedSpec(name=base.FEATURES, latents=latents, text=text) if latents or text else None
    shown = f"PrecomputedSpec(latents={latents}, text={text})" if value else "None"
    if value is not None:
        yield silent("features", "data.precomputed", value)
    for kind, path in (
        (DATA, "dataset_param.dataset_type"),
        (MODEL, "load_video_features"),
        (MODEL, "load_text_features"),
    ):
        fact = files.fact(kind, path)
        if fact is None:
            continue
        if kind == MODEL and not isinstance(fact.value, bool):
            yield refused(fact, "expected true or false")
        elif kind == DATA and fact.value not in ("t2v", "feature"):
            yield refused(fact, "is not read by Wan's training: only t2v (clips) and feature can be imported")
        else:
            yield said(Verdict.MAPPED, fact, f"data.precomputed = {shown}")


def adapters_and_average(files: Files, known: Known) -> Iterator[Reading]:
    """`lora` and `ema`."""
    if files.holds("lora"):
        yield silent("lora", "lora", LoraSpec())
    if files.holds("ema"):
        yield silent("ema", "ema", EmaSpec())


def optimizer(files: Files, known: Known) -> Iterator[Reading]:
    """`optim`: AdamW, or Muon."""
    fact, selection = files.fact(FLAG, "--optimizer"), files.fact(FLAG, "--optimizer-selection")
    if fact is not None and fact.value == "muon":
        yield Reading(fact, Verdict.MAPPED, "optim = MuonSpec(...)", "optim", MuonSpec(betas=(0.9, 0.999)))
    elif fact is not None and fact.value != "adam":
        yield refused(fact, f"can't be said here: only {', '.join(_OPTIMIZERS)}")
    elif fact is not None:
        yield said(Verdict.MAPPED, fact, "optim = AdamWSpec(...)")
    if selection is None:
        return
    if selection.value == "fused_ema_adamw":
        yield said(Verdict.MAPPED, selection, "ema = EmaSpec(...)")
    elif selection.value in _SELECTIONS:
        text = "ema = None: AdamW; its implementation is the device's fastest"
        yield said(Verdict.MAPPED, selection, text)
    else:
        yield refused(selection, f"can't be said here: only {', '.join(_SELECTIONS)}")
