"""What an import tells of a dump: each key, and what the dump leaves open."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mm_config.importing.report import Entry
from mm_config.importing.rows import Row
from mm_config.importing.telefuser.families import W22, Known
from mm_config.importing.telefuser.readings import Said, Told, Value
from mm_config.importing.verdict import Verdict
from mm_config.schema.diff import for_person
from mm_config.schema.errors import UserError
from mm_config.schema.evolve import get
from mm_config.schema.fields import ABSENT
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Conditioning
from mm_config.specs.weights import ReleasedWeights

PROMPT = "sunrise"
"""What a command generates where nobody has said it."""
_STAGES = {
    "vae_config": "autoencoder",
    "text_encoding_config": "text_encoder",
    "clip_config": "image_encoder",
}


def asked(spec: InferSpec, placeless: Mapping[str, list[str]]) -> Iterator[Entry]:
    """What somebody has to say before the experiment runs.

    Args:
        spec: The imported one.
        placeless: Names of weights without a folder, each with the fields that take them.
    """
    for name, paths in placeless.items():
        text = f"the dump has no folder for {', '.join(paths)}"
        yield Entry(Verdict.OPEN, text, key=f"--location {name}=FOLDER")
    yield Entry(Verdict.OPEN, f"no dump has one: {PROMPT!r} stands for it", key="--spec.prompts TEXT")
    conditioning = getattr(spec.model, "conditioning", None)
    if conditioning in (Conditioning.FIRST_FRAME, Conditioning.FIRST_AND_LAST_FRAME):
        yield Entry(Verdict.OPEN, "the first frame of each prompt", key="--spec.samples.images FILE")
    if conditioning is Conditioning.FIRST_AND_LAST_FRAME:
        yield Entry(Verdict.OPEN, "the last frame of each prompt", key="--spec.samples.last_images FILE")


def entries(facts: Iterable[Value], spec: InferSpec, told: Iterable[Told], file: Path) -> Iterator[Entry]:
    """What became of each key of the dump, in its order."""
    # Of a key itself rather than of an object around it, and of the first reading rather than of a later.
    findings = sorted(told, key=lambda one: -len(one.because.key))
    for fact in facts:
        place, row = f"{file}:{fact.line}", fact.row
        found = next((one for one in findings if one.covers(fact.key)), None)
        if row is None:
            text = "TeleFuser's classes as known here have no such field; the spec leaves it out"
            yield Entry(Verdict.UNKNOWN, text, place, fact.key, fact.value)
            continue
        nothing = bool(row.inside) and fact.value in (None, ())
        verdict, text = row.verdict, "none" if nothing else row.reason
        if found is not None:
            verdict, text = found.verdict, found.text
        elif verdict is Verdict.REFUSED:
            verdict, text = Verdict.DERIVED, "off, as always here"
        elif verdict is Verdict.MAPPED and not nothing:
            text = ", ".join(_place(path, spec) for path in targets(fact))
        is_default = nothing or fact.value == row.default
        yield Entry(verdict, text, place, fact.key, fact.value, is_default)


def targets(fact: Value) -> list[str]:
    """Canonical paths of a field, of several those of the key's stage."""
    parts = fact.row.target.split(", ") if fact.row else []
    stage = next((name for field, name in _STAGES.items() if f".{field}." in f".{fact.key}."), None)
    if stage is None:
        is_own = [part for part in parts if part.partition(".")[0] not in _STAGES.values()]
        return [part for part in is_own if not part.endswith(".encoders")]
    own = [part for part in parts if part.startswith(f"{stage}.") or part.endswith(".encoders")]
    return own or parts


def _place(path: str, spec: InferSpec) -> str:
    try:
        return f"spec.{path} = {for_person(get(spec, path))}"
    except UserError:
        return f"spec.{path}"


def misses(spec: InferSpec, known: Known, said: Mapping[str, Said], call: Iterable[Row]) -> Iterator[str]:
    """Models that a dump does not list, and the fixed arguments of `__call__`, which no dump holds."""
    for path, one in said.items():
        value = one.value
        if not one.because.given and isinstance(value, ReleasedWeights):
            yield f"spec.{path} = {value.name}, {value.subfolder} (the dump lists no such model)"
    # Of the other pipelines these defaults alone are known to be the same.
    same = None if known.pipeline == W22 else ("sigma_shift", "tiled", "tile_size")
    single = spec.boundary is None
    other = ("cfg_scale_high", "cfg_scale_low", "boundary") if single else ("cfg_scale",)
    for row in call:
        if row.verdict is not Verdict.MAPPED or row.path in other:
            continue
        path = row.target.split(", ")[0]
        ours = "Wan's own" if path == "negative_prompt" else for_person(get(spec, path))
        stated = row.default not in (None, ABSENT) and (same is None or row.path in same)
        theirs = f"; {json.dumps(row.default)} runs where a script gives none" if stated else ""
        yield f"spec.{path} = {ours} ({row.path}{theirs})"


def warnings(spec: InferSpec, known: Known, told: Iterable[Told]) -> Iterator[str]:
    """What is to be known beyond single keys, with contradictions of defaults that the dump leaves out."""
    loud = (Verdict.CONFLICT, Verdict.REFUSED)
    yield from (
        f"{one.because.key}: {one.text}" for one in told if not one.because.given and one.verdict in loud
    )
    sampler = spec.sampler
    yield (
        "shift, guidance and steps are arguments of __call__, with defaults of TeleFuser's own (a shift of "
        f"5.0): the spec has {sampler.shift}, {sampler.guidance_high_noise} and {sampler.steps}; put in what "
        "your script gives"
    )
    if spec.boundary is not None:
        yield (
            "boundary is an argument too: wan22_14b_text_to_video_h100.py has 0.9 in its PPL_CONFIG, never "
            f"passes it and runs with 0.875; the spec has {spec.boundary}"
        )
    if sampler.solver is not known.family.sampler.solver:
        yield (
            f"the sampler is {sampler.solver.value} on {sampler.sigmas.value}; Wan's authors sample with "
            f"{known.family.sampler.solver.value} on {known.family.sampler.sigmas.value}"
        )
    yield (
        f"TeleFuser keeps latents and timesteps in {spec.dtype.value}, where bfloat16 of 999 is 1000; here "
        "latents are float32 and timesteps exact"
    )
    yield "TeleFuser's scripts have an English negative prompt; the spec has Wan's own, which is Chinese"
