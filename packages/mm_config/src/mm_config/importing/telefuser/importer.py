"""A dump of TeleFuser's `dump_config` as an inference spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import attrs

from mm_config import rules
from mm_config.importing.nodes import Mapping as Object
from mm_config.importing.nodes import Node, node_in_file
from mm_config.importing.parsers.json_text import read_json
from mm_config.importing.report import Comparison, Report
from mm_config.importing.telefuser import networks, running, weights
from mm_config.importing.telefuser.families import ASYNC, KNOWN, W22, family_of
from mm_config.importing.telefuser.parsing import Parsed, is_nothing, read_config
from mm_config.importing.telefuser.readings import Dump, Reading, Said, Told, Value, Wrong, composed
from mm_config.importing.telefuser.table import CALL, CLASSES, DUMP
from mm_config.importing.telefuser.telling import PROMPT, asked, entries, misses, warnings
from mm_config.importing.verdict import Verdict
from mm_config.schema.diff import diff
from mm_config.schema.errors import UserError
from mm_config.schema.evolve import get, leaves, replace
from mm_config.schema.suggestions import did_you_mean
from mm_config.specs.infer import InferSpec
from mm_config.specs.weights import ReleasedWeights

READINGS: tuple[Reading, ...] = (
    weights.models,
    weights.adapters,
    networks.formats,
    networks.attention,
    networks.quantization,
    networks.feature_cache,
    networks.encoders,
    networks.solver,
    networks.pipeline,
    running.device,
    running.compilation,
    running.ranks,
    running.tiles,
    running.residency,
)
"""What is read of a dump, in the order of its findings; each reading is a function of the dump alone."""
_LAYER1, _LAYER2 = "layer1_model_definition", "layer2_inference_config"
_ENCODERS = {
    "text_encoding_config": "text_encoder",
    "clip_config": "image_encoder",
    "vae_config": "autoencoder",
}


def import_dump(file: Path, *, allow_unknown: bool = False) -> tuple[InferSpec, Report]:
    """The inference spec of a dump, of the seed's form or the newer one.

    What no dump holds (shift, guidance, boundary, steps, size, prompts) is the family's official value;
    the report says so.

    Args:
        file: JSON, as `pipe.dump_config(path)` writes it.
        allow_unknown: Whether keys that somebody seems to have misspelt are reported instead of refused.

    Raises:
        UserError: The file is no dump, its family can't be told, or it says what no spec can say; each
            problem names the file, the line and the key.
    """
    parsed = Parsed(file, CLASSES, allow_unknown)
    dump = _dump(read_json(file), parsed)
    said, findings = composed(READINGS, dump, frozenset(parsed.damaged))
    told = [one for one in findings if isinstance(one, Told)]
    for wrong in (one for one in findings if isinstance(one, Wrong)):
        parsed.refuse(wrong.because, wrong.text)
    _refuse_what_no_spec_says(told, parsed)
    parsed.check()
    spec = _spec(dump, said, parsed)
    used, roots = _used(spec), weights.named(dump).locations
    locations = {name: roots[name] for name in used if roots.get(name)}
    placeless = {name: fields for name, fields in used.items() if name not in locations}
    flags = [word for name, root in locations.items() for word in ("--location", f"{name}={root}")]
    ranks = running.ranks_of(spec)
    known = dump.known
    report = Report(
        family=f"{known.title} ({dump.root.at('pipeline_type').value})",
        entries=(*asked(spec, placeless), *entries(parsed.facts, spec, told, file)),
        comparisons=(
            Comparison(
                known.experiment or f"the official values of {known.title}", diff(known.official, spec)
            ),
        ),
        flags=(*flags, "--spec.prompts", PROMPT),
        launcher=("python",) if ranks == 1 else ("torchrun", f"--nproc-per-node={ranks}"),
        ranks=ranks,
        more={
            "not in the dump, so the official values hold": tuple(
                misses(spec, known, said, CLASSES[CALL].values())
            ),
            "mind": tuple(warnings(spec, known, told)),
        },
        grouped=True,
    )
    return spec, report


def _dump(node: Node, parsed: Parsed) -> Dump:
    """What readings read of the file.

    Raises:
        UserError: It is no dump of a family here, or has keys or values that TeleFuser's classes have not.
    """
    pipeline = _pipeline_type(node, parsed)
    parsed.check()
    root = read_config(node, DUMP, "", parsed, layer2_inference_config=f"{pipeline.value}Config")
    version = root.at("version")
    if version.value != "1.0":
        parsed.refuse(version, f"expected '1.0', the only version there is, got {version.value!r}")
    own, models = root.inside(_LAYER2), weights.models_of(root.inside(_LAYER1))
    experts, clip = (weights.HIGH, weights.LOW), own.fields.get("enable_clip_stage")
    known = family_of(
        f"{pipeline.value}",
        [path for model in models if model.role in experts for path in model.paths],
        [path for model in models if model.role not in (*experts, weights.UNUSED) for path in model.paths],
        clip and clip.value,
    )
    if isinstance(known, str):
        if not any(key.startswith(_LAYER1) for key in parsed.damaged):
            parsed.refuse(pipeline, known)
        raise UserError(dict.fromkeys(parsed.problems))
    names = ("dit_high_config", "dit_low_config") if pipeline.value == W22 else ("dit_config",)
    has_image = known.family.image_encoder is not None
    encoders = {
        ours: own.inside(theirs) for theirs, ours in _ENCODERS.items() if has_image or ours != "image_encoder"
    }
    return Dump(root, own, known, tuple(own.inside(name) for name in names), encoders)


def _pipeline_type(node: Node, parsed: Parsed) -> Value:
    """The pipeline's class; the asynchronous one is the one that it runs."""
    if not isinstance(node.value, Object):
        parsed.refuse(Value(None, "the dump", node.line), "expected an object, as dump_config writes it")
        return Value(None, "pipeline_type", node.line)
    for name in ("pipeline_type", _LAYER1, _LAYER2):
        if is_nothing(node.value.get(name)):
            parsed.refuse(Value(None, name, node.line), "is missing; dump_config writes it")
    given = node.value.get("pipeline_type")
    if given is None or is_nothing(given):
        return Value(None, "pipeline_type", node.line)
    value, kinds = Value(given.value, "pipeline_type", given.line), [known.pipeline for known in KNOWN]
    if value.value == ASYNC:
        return attrs.evolve(value, value=W22)
    if value.value not in kinds:
        known = f"{', '.join(dict.fromkeys(kinds))}, as Wan's networks alone have families here"
        near = did_you_mean(value.value, kinds)
        parsed.refuse(value, f"expected one of {known}, got {node_in_file(given)}{near}")
    return value


def _refuse_what_no_spec_says(told: list[Told], parsed: Parsed) -> None:
    """Fields at another value than the one that turns them off, where something reads them."""
    for fact in parsed.facts:
        if fact.row is None or fact.row.verdict is not Verdict.REFUSED or fact.value == fact.row.default:
            continue
        if fact.value is None or any(one.covers(fact.key) for one in told):
            continue
        text = f"{fact.row.reason}; only {json.dumps(fact.row.default)} can be taken over"
        parsed.refuse(fact, text)


def _spec(dump: Dump, said: Mapping[str, Said], parsed: Parsed) -> InferSpec:
    """The family's spec with what the dump says; what is wrong with it is told at the dump's lines."""
    values = {path: (value, because) for one in said.values() for path, value, because in one.leaves}
    whole = {path: value for path, (value, _) in values.items() if path in said}
    parts = {path: value for path, (value, _) in values.items() if path not in said}
    try:
        spec = replace(replace(dump.known.family.infer(), whole), parts)
        rules.check(spec)
    except UserError as error:
        pipeline = dump.root.at("pipeline_type")
        for problem in error.problems:
            path = problem.path.removeprefix("spec.")
            above = [known for known in values if path == known or path.startswith(f"{known}.")]
            because = values[max(above, key=len)][1] if above else pipeline
            parsed.refuse(because, f"{problem.message} ({problem.path})")
        raise UserError(dict.fromkeys(parsed.problems)) from None
    return spec


def _used(spec: InferSpec) -> dict[str, list[str]]:
    """The fields that take weights of each logical name."""
    used: dict[str, list[str]] = {}
    for path, _, last in (leaf.path.rpartition(".") for leaf in leaves(spec)):
        if path and last == "name" and isinstance(found := get(spec, path), ReleasedWeights):
            used.setdefault(found.name, []).append(path)
    return used
