"""The parts of the report beside the keys: what the spec is held against, and the command that runs it."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from typing import Any

from mm_config.importing.mindspeed import base
from mm_config.importing.mindspeed.files import Files, Known
from mm_config.importing.mindspeed.keys import FLAG
from mm_config.importing.mindspeed.places import FAMILIES, is_placeholder
from mm_config.importing.readings import Reading, said
from mm_config.importing.report import Comparison
from mm_config.importing.verdict import Verdict
from mm_config.schema.diff import diff
from mm_config.schema.errors import UserError
from mm_config.schema.root import RootSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec

_EXPERIMENTS = {
    "wan21.T2V_1_3B": "wan21_t2v_1_3b",
    "wan21.T2V_14B": "wan21_t2v_14b",
    "wan21.I2V_14B_480P": "wan21_i2v_14b",
    "wan21.I2V_14B_720P": "wan21_i2v_14b",
    "wan21.FLF2V_14B": "wan21_flf2v_14b",
    "wan22.T2V_A14B": "wan22",
    "wan22.I2V_A14B": "wan22_i2v",
    "wan22.TI2V_5B": "wan22_ti2v_5b",
}
_SUFFIXES = {Expert.HIGH_NOISE: "_high", Expert.LOW_NOISE: "_low", Expert.SINGLE: ""}
_ABSENT = {"script": "no launch script", "model.json": "no model.json", "data.json": "no data.json"}


def kinds_left(kinds: Collection[str]) -> Iterator[Reading]:
    """Where values of a training come from that no file tells."""
    source = "the family's and experiments/wan22_high.py's values hold"
    for kind, text in _ABSENT.items():
        if kind not in kinds:
            yield said(Verdict.DEFAULT, kind.replace("script", "launch script"), f"{text}: {source}")


def comparisons(known: Known, spec: TrainSpec | InferSpec) -> Iterator[Comparison]:
    """From the official family, and from our experiment where the experiments can be imported."""
    if not known.name:
        return
    family = FAMILIES[known.name]
    if isinstance(spec, InferSpec):
        yield Comparison(f"the official {known.name}", diff(base.generation(family), spec))
    else:
        expert = spec.expert if family.boundary is not None else Expert.SINGLE
        title = f"the official {known.name}, trained as wan22_high"
        yield Comparison(title, diff(base.training(family, expert), spec))
    experiment = _experiment(known.name, spec)
    found = _spec_of(experiment)
    if found is not None:
        yield Comparison(f"experiments/{experiment}.py", diff(found, spec))


def _experiment(name: str, spec: TrainSpec | InferSpec) -> str:
    stem = _EXPERIMENTS[name]
    if isinstance(spec, TrainSpec):
        return stem + _SUFFIXES[spec.expert]
    return {"wan22": "wan22_t2v", "wan22_i2v": "wan22_i2v"}.get(stem, f"{stem}_infer")


def _spec_of(experiment: str) -> Any:
    """The spec of an experiment of this project; None where it is not installed, or broken by its owner."""
    try:
        found = getattr(importlib.import_module(f"experiments.{experiment}"), "SPEC", None)
    except (ImportError, SyntaxError, UserError):
        return None
    return found if isinstance(found, RootSpec) else None


def launcher(files: Files) -> tuple[str, ...]:
    """The words that start the run on its ranks."""
    ranks, nodes = files.world_size, files.raw(FLAG, "--nnodes", 1)
    if ranks is None or ranks == 1:
        return ("python",)
    words = ["torchrun", "--nproc-per-node", str(files.raw(FLAG, "--nproc_per_node")), "--nnodes", str(nodes)]
    if nodes > 1:
        for flag in ("--node_rank", "--master_addr", "--master_port"):
            value = files.raw(FLAG, flag)
            if value is not None and not is_placeholder(str(value)):
                words += [flag.replace("_", "-"), str(value)]
    return tuple(words)
