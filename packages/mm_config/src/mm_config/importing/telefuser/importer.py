"""A dump of TeleFuser's `dump_config` as an inference spec."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mm_config import rules
from mm_config.importing.nodes import Mapping, Node, node_in_file
from mm_config.importing.parsers.json_text import read_json
from mm_config.importing.report import Comparison, Entry, Report
from mm_config.importing.telefuser.config import Config, Fact, Findings, Value, read_config
from mm_config.importing.telefuser.families import KNOWN, OTHERS, W22, Known, family_of
from mm_config.importing.telefuser.models import HIGH, LOW, ROLES, UNUSED, models_of, weights_of
from mm_config.importing.telefuser.networks import Said, ranks_of
from mm_config.importing.telefuser.stages import layer2_said
from mm_config.importing.telefuser.table import CALL, DUMP, rows_of
from mm_config.importing.verdict import Verdict
from mm_config.schema.diff import diff, for_person
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.evolve import get, replace
from mm_config.schema.suggestions import did_you_mean
from mm_config.schema.types import is_spec
from mm_config.specs.infer import InferSpec

_LAYER1, _LAYER2 = "layer1_model_definition", "layer2_inference_config"
_REQUIRED = ("pipeline_type", _LAYER1, _LAYER2)


def import_dump(file: Path, *, allow_unknown: bool = False) -> tuple[InferSpec, Report]:
    """The inference spec of a dump, of the seed's form or the newer one.

    What no dump holds (shift, guidance, boundary, steps, size, prompts) is the family's official value;
    the report says so.

    Args:
        file: JSON, as `pipe.dump_config(path)` writes it.
        allow_unknown: Whether keys that TeleFuser's classes lack are left out and reported instead of
            refused.

    Raises:
        UserError: The file is no dump, its family can't be told, or it says what no spec can say; each
            problem names the file, the line and the key.
    """
    node, found = read_json(file), Findings(file, allow_unknown=allow_unknown)
    pipeline = _pipeline_type(node, found)
    found.check()
    config = f"{pipeline.value}Config"
    dump = read_config(node, DUMP, "", found, layer2_inference_config=config)
    found.check()
    version = dump.at("version")
    if version.value != "1.0":
        found.refuse(version, f"expected '1.0', the only version there is, got {version.value!r}")
    layer2 = dump.inside(_LAYER2)
    models = models_of(dump.inside(_LAYER1), found)
    networks = [model.path for model in models if model.role in (HIGH, LOW)]
    others = [model.path for model in models if model.role not in (HIGH, LOW, UNUSED)]
    known = family_of(pipeline, networks, others, layer2, found)
    if known is None:
        found.check()
        raise AssertionError("a family that can't be told is a problem")
    weights, hints = weights_of(models, known, found)
    said, adapter_hints = layer2_said(layer2, dump, known, found)
    found.problems += _refused(found)
    found.check()
    spec = _spec(known, {**weights, **said}, pipeline, found)
    missing = [role for role in ROLES if not any(model.role == role for model in models)]
    places = tuple(dict.fromkeys((*hints, *adapter_hints)))
    folders = dict.fromkeys(hint.location for hint in places if hint.path)
    compared = known.experiment or f"the official values of {known.title}"
    ranks = ranks_of(spec)
    report = Report(
        family=f"{known.title} ({pipeline.value})",
        entries=tuple(map(_entry_of(found, said), found.facts)),
        comparisons=(Comparison(compared, diff(known.official, spec)),),
        flags=tuple(word for place in folders for word in ("--location", place)),
        launcher=("python",) if ranks == 1 else ("torchrun", f"--nproc-per-node={ranks}"),
        more={
            "not in the dump, so the official values hold": (
                *_missing_models(missing, spec),
                *_absent(spec, known),
            ),
            "mind": (*found.warnings, *_warnings(spec, known)),
            "where the weights lay": tuple(hint.line for hint in places),
        },
        grouped=True,
    )
    return spec, report


def _pipeline_type(node: Node, found: Findings) -> Value:
    root = Config(DUMP, "the dump", node.line, {})
    if not isinstance(node.value, Mapping):
        found.refuse(root, "expected an object, as dump_config writes it")
        return Value(None, "pipeline_type", node.line)
    for name in _REQUIRED:
        if node.value.get(name) is None:
            found.refuse(Value(None, name, node.line), "is missing; dump_config writes it")
    given = node.value.get("pipeline_type")
    value = Value(given.value if given else None, "pipeline_type", given.line if given else node.line)
    kinds = dict.fromkeys(known.pipeline for known in KNOWN)
    if value.value in OTHERS:
        found.refuse(value, f"{value.value} is no pipeline of Wan's networks, which alone have families here")
    elif given and value.value not in kinds:
        near = did_you_mean(value.value, kinds)
        found.refuse(value, f"expected one of {', '.join(kinds)}, got {node_in_file(given)}{near}")
    return value


def _refused(found: Findings) -> Iterator[Problem]:
    """Fields that no spec can say, at another value than the one that turns them off."""
    for fact in found.facts:
        if fact.row is None or fact.row.verdict is not Verdict.REFUSED or fact.key in found.remarks:
            continue
        if fact.value != fact.row.default:
            off = json.dumps(fact.row.default)
            message = f"{fact.key}: {fact.row.reason}; only {off} can be taken over"
            yield Problem(f"{found.file}:{fact.line}", message)


def _spec(known: Known, said: Said | dict[str, Any], pipeline: Value, found: Findings) -> InferSpec:
    """The family's spec with what the dump says; what is wrong with it is told at the dump's lines."""
    whole = {path: value for path, (value, _) in said.items() if _is_whole(path, value)}
    leaves = {path: value for path, (value, _) in said.items() if path not in whole}
    try:
        spec = replace(replace(known.family.infer(), whole), leaves)
        rules.check(spec)
    except UserError as error:
        raise UserError(
            dict.fromkeys(_placed(problem, said, pipeline, found) for problem in error.problems)
        ) from None
    return spec


def _is_whole(path: str, value: Any) -> bool:
    return is_spec(value) or path in ("loras", "sparse_attention", "quantization", "feature_cache")


def _placed(problem: Problem, said: Said, pipeline: Value, found: Findings) -> Problem:
    """A problem of the spec, at the value of the dump that is to blame."""
    path = problem.path.removeprefix("spec.")
    known = [name for name in said if path == name or path.startswith(f"{name}.")]
    value = said[max(known, key=len)][1] if known else pipeline
    return Problem(f"{found.file}:{value.line}", f"{value.key}: {problem.message} ({problem.path})")


def _entry_of(found: Findings, said: Said) -> Callable[[Fact], Entry]:
    """What the report says of a fact."""
    places: dict[str, list[str]] = {}
    for path, (value, where) in said.items():
        places.setdefault(where.key, []).append(f"spec.{path} = {for_person(value)}")

    def entry(fact: Fact) -> Entry:
        row, place = fact.row, f"{found.file}:{fact.line}"
        if row is None:
            return Entry(Verdict.UNKNOWN, "TeleFuser has no such field", place, fact.key, fact.value)
        verdict, text = row.verdict, row.reason
        nothing = isinstance(row.holds, str) and fact.value in (None, ())
        if fact.key in found.remarks:
            verdict, text = found.remarks[fact.key]
        elif verdict is Verdict.REFUSED:
            verdict, text = Verdict.DERIVED, "off, as always here"
        elif nothing:
            text = "none"
        if verdict is Verdict.MAPPED and not text.startswith("spec."):
            # What the low-noise expert says otherwise was refused or told as a conflict.
            first = fact.key.replace(".dit_low_config.", ".dit_high_config.")
            text = ", ".join(places.get(first, [f"spec.{_target(fact, row.target)}"]))
        is_default = nothing or fact.value == row.default
        return Entry(verdict, text, place, fact.key, fact.value, is_default)

    return entry


def _target(fact: Fact, target: str) -> str:
    """Of several places the one that the key's network has."""
    parts = target.split(", ")
    stages = {"vae_config": "autoencoder", "text_encoding": "text_encoder", "clip_config": "image_encoder"}
    for stage, name in stages.items():
        if f".{stage}" in fact.key:
            own = [part for part in parts if part.startswith(name) or part.endswith(".encoders")]
            return own[0] if own else target
    if "dit_" in fact.key:
        own = [part for part in parts if part == "dtype" or part.endswith(".experts")]
        return own[0] if own else target
    return target


def _missing_models(roles: list[str], spec: InferSpec) -> Iterator[str]:
    for role in roles:
        name = role.partition(".")[0]
        if getattr(spec, name) is not None:
            yield f"spec.{role} = {_weights(get(spec, role))} (the dump lists no such model)"


def _weights(value: Any) -> str:
    return f"{value.name}, {value.subfolder}"


def _absent(spec: InferSpec, known: Known) -> Iterator[str]:
    """The fixed arguments of `__call__`, which no dump holds."""
    # Of the other pipelines these defaults alone are known to be the same.
    same = None if known.pipeline == W22 else ("sigma_shift", "tiled", "tile_size")
    single = spec.boundary is None
    other = ("cfg_scale_high", "cfg_scale_low", "boundary") if single else ("cfg_scale",)
    for row in rows_of(CALL).values():
        if row.verdict is not Verdict.MAPPED or row.name in other:
            continue
        path = row.target.split(", ")[0]
        ours = "Wan's own" if path == "negative_prompt" else for_person(get(spec, path))
        stated = row.default is not None and (same is None or row.name in same)
        theirs = f"; {json.dumps(row.default)} runs where a script gives none" if stated else ""
        yield f"spec.{path} = {ours} ({row.name}{theirs})"


def _warnings(spec: InferSpec, known: Known) -> Iterator[str]:
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
    yield (
        "TeleFuser's scripts give an English negative prompt; the spec has the Chinese one that Wan was "
        "trained with"
    )
