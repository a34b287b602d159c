"""An inference spec as a dump of TeleFuser's, with both layers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from mm_config.importing.nodes import Mapping, Node, Sequence
from mm_config.importing.telefuser.config import Findings
from mm_config.importing.telefuser.families import KNOWN, TI2V, Known
from mm_config.importing.telefuser.importer import of_node
from mm_config.importing.telefuser.models import HIGH, IMAGE, LOW, ROLES, TEXT, VAE
from mm_config.importing.telefuser.networks import MODULES, NO_GROUPS, condition_names, our_module, ranks_of
from mm_config.importing.telefuser.runtime_rows import ATTENTION, QUANT
from mm_config.importing.telefuser.stages import encoder_fields, network_fields
from mm_config.importing.telefuser.table import CALL, rows_of
from mm_config.options.locations import Locations
from mm_config.schema.diff import Change, diff
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.evolve import get
from mm_config.schema.identity import JSON, spec_hash
from mm_config.schema.root import RootSpec
from mm_config.schema.types import is_tuple
from mm_config.specs.diffusion import Solver
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import ModelSpec, Weights
from mm_config.specs.parallel import AttentionImpl, CompileMode, CompileSpec
from mm_config.specs.serving import (
    GuidanceMode,
    QuantFormat,
    Residency,
    ResidencySpec,
    SparsePattern,
)
from mm_config.specs.weights import RandomWeights, ReleasedWeights, TrainedBy

EPOCH = "1970-01-01T00:00:00"
"""The timestamp of every export: equal specs give equal files, which the wall clock would forbid."""

MOST_RANKS = 65536

_NAMES = {
    HIGH: ("wan_video_dit", "WanModel"),
    LOW: ("wan_video_dit_low_noise", "WanModel"),
    VAE: ("wan_video_vae", "WanVideoVAE"),
    TEXT: ("wan_video_text_encoder", "WanTextEncoder"),
    IMAGE: ("wan_video_image_encoder", "WanImageEncoder"),
}
_IMPL = {impl: name for name, impl in reversed(ATTENTION.items())}
_QUANT = {format: name for name, format in reversed(QUANT.items())}
_OURS = {ours: theirs for theirs, ours in MODULES.items()}


@attrs.frozen
class Export:
    """A dump, and what it does not say."""

    dump: dict[str, JSON]
    arguments: dict[str, JSON]
    """What to give to TeleFuser's `__call__`, which no dump holds."""
    lost: tuple[Change, ...]
    """Fields that come back otherwise when the dump is imported."""
    unplaced: tuple[str, ...]
    """Logical names that stand where TeleFuser wants a path."""
    tells_family: bool
    """Whether `mm import telefuser` can tell the family by the dump's paths."""

    def text(self) -> str:
        """The dump's file."""
        return json.dumps(self.dump, indent=2, allow_nan=False) + "\n"


def export(spec: RootSpec, locations: Locations = Locations()) -> Export:
    """A spec in TeleFuser's dump format, version 1.0.

    Args:
        spec: An inference spec with the networks of one of Wan's families.
        locations: Where weights lie; names without a location stand in place of their path.

    Raises:
        UserError: It is no such spec, or TeleFuser would refuse it.
    """
    if not isinstance(spec, InferSpec):
        raise UserError(Problem("spec", "is a training; TeleFuser only generates, so give an inference spec"))
    known = _family(spec)
    if problems := list(_unfit(spec)):
        raise UserError(problems)
    # What is lost is found by coming back, from logical names: paths say nothing of the spec.
    named = _dump(spec, known, Locations())
    back = _back(named) or _back(named, known)
    assert back is not None, "a dump of ours can be read for its own family"
    arguments = dict(_arguments(spec))
    of_call = {rows_of(CALL)[name].target.split(", ")[0] for name in arguments}
    lost = tuple(change for change in diff(spec, back) if not _covered(change.path, of_call))
    unplaced = tuple(
        dict.fromkeys(
            weights.name
            for weights in _all_weights(spec)
            if isinstance(weights, ReleasedWeights) and _location(weights.name, locations) is None
        )
    )
    dump = _dump(spec, known, locations)
    return Export(dump, arguments, lost, unplaced, _back(dump) is not None)


def _back(dump: dict[str, JSON], known: Known | None = None) -> InferSpec | None:
    """The spec of a dump; None where its paths don't tell the family."""
    try:
        return of_node(_node(dump), Findings(Path("export")), known)[0]
    except UserError:
        if known is not None:
            raise
        return None


def _covered(path: str, of_call: set[str]) -> bool:
    return any(f"{path}.".startswith(f"spec.{name}.") for name in of_call)


def _family(spec: InferSpec) -> Known:
    """The family with the spec's networks that has most values in common with it."""
    fitting = [known for known in KNOWN if _same_networks(spec, known)]
    if not fitting:
        titles = ", ".join(known.title for known in KNOWN)
        raise UserError(
            Problem("spec.model", f"TeleFuser's pipelines know Wan's own networks alone: {titles}")
        )
    return min(fitting, key=lambda known: len(diff(known.official, spec)))


def _same_networks(spec: InferSpec, known: Known) -> bool:
    """Whether all that a dump can't say of the networks is the family's."""
    own = known.official
    if (spec.boundary is None) != (own.boundary is None) or spec.distilled != own.distilled:
        return False
    changes = (change.path for part in _PARTS for change in diff(get(own, part), get(spec, part)))
    return all(path.removeprefix("spec.").partition(".")[0] in _FREE for path in changes)


_PARTS = ("model", "autoencoder", "text_encoder", "image_encoder")
_FREE = ("weights", "dtype", "tiling", "tile_size", "tile_stride")


def _unfit(spec: InferSpec) -> Iterator[Problem]:
    if (ranks := ranks_of(spec)) > MOST_RANKS:
        yield Problem(
            "spec.runtime.parallel",
            f"makes {ranks} ranks; a dump lists the device of each, at most {MOST_RANKS}",
        )
    compile, parallel = spec.runtime.compile, spec.runtime.parallel
    if compile.enabled and compile.fullgraph and compile.dynamic:
        yield Problem(
            "spec.runtime.compile.dynamic",
            "TeleFuser's CompileConfig refuses dynamic together with fullgraph; turn one of them off",
        )
    if parallel.tensor > 1 and parallel.ulysses * parallel.ring > 1:
        yield Problem(
            "spec.runtime.parallel.tensor",
            "TeleFuser's tensor ranks exclude ulysses and ring; choose one of them",
        )


def _dump(spec: InferSpec, known: Known, locations: Locations) -> dict[str, JSON]:
    device = "cuda" if spec.runtime.device == "auto" else spec.runtime.device
    return {
        "version": "1.0",
        "timestamp": EPOCH,
        "pipeline_type": known.pipeline,
        "device": device,
        "torch_dtype": spec.dtype.value,
        "layer1_model_definition": {"models": list(_models(spec, locations))},
        "layer2_inference_config": _layer2(spec, known, locations),
    }


def _models(spec: InferSpec, locations: Locations) -> Iterator[JSON]:
    for role in ROLES:
        if getattr(spec, role.partition(".")[0]) is None:
            continue
        name, cls = _NAMES[role]
        if role == HIGH and spec.boundary is not None:
            name = f"{name}_high_noise"
        yield {"name": name, "path": _path(get(spec, role), locations), "class": cls}


def _path(weights: Weights, locations: Locations) -> str | None:
    match weights:
        case ReleasedWeights(name=name, subfolder=subfolder):
            found = _location(name, locations)
            root = name if found is None else str(found)
            return f"{root}/{subfolder}" if subfolder else root
        case TrainedBy(spec=trained):
            return f"trained-by/{spec_hash(trained)}"
        case RandomWeights():
            return None
        case _:
            raise AssertionError(f"{type(weights).__name__} is no kind of weights")


def _location(name: str, locations: Locations) -> Path | None:
    return next((entry.path for entry in locations.entries if entry.name == name), None)


def _all_weights(spec: InferSpec) -> Iterator[Weights]:
    for role in ROLES:
        if getattr(spec, role.partition(".")[0]) is not None:
            yield get(spec, role)
    for lora in spec.loras:
        yield from (weights for weights in (lora.high_noise, lora.low_noise) if weights is not None)


def _layer2(spec: InferSpec, known: Known, locations: Locations) -> dict[str, JSON]:
    """The pipeline's configuration, every field in its class's order."""
    networks = network_fields(known.pipeline)
    encoders = encoder_fields(known)
    values: dict[str, JSON] = {
        "sample_solver": _solver(spec, known.pipeline),
        "enable_clip_stage": spec.image_encoder is not None,
        "enable_denoising_parallel": ranks_of(spec) > 1,
        "enable_vae_parallel": spec.runtime.parallel.autoencoder,
    }
    for index, field in enumerate(networks):
        values[field] = _network(spec, index, locations)
    for field, name in encoders.items():
        values[field] = _encoder(spec, name)
    made: dict[str, JSON] = {}
    for name, row in rows_of(f"{known.pipeline}Config").items():
        plain = row.holds != "ModelRuntimeConfig"
        made[name] = values.get(name, row.default if plain else None)
        if made[name] is None and not plain and not row.optional:
            made[name] = _defaults("ModelRuntimeConfig")
    return made


def _network(spec: InferSpec, index: int, locations: Locations) -> dict[str, Any]:
    runtime, residency = spec.runtime, spec.runtime.residency
    parallel = runtime.parallel
    degrees = {
        "dp_degree": parallel.data,
        "cfg_degree": 2 if runtime.guidance is GuidanceMode.PARALLEL else 1,
        "sp_ulysses_degree": parallel.ulysses,
        "sp_ring_degree": parallel.ring,
        "tp_degree": parallel.tensor,
    }
    ranks = ranks_of(spec)
    adapters = [((lora.high_noise, lora.low_noise)[index], lora.strength) for lora in spec.loras]
    cache = spec.feature_cache
    return _defaults("ModelRuntimeConfig") | {
        "offload_config": _offload(residency.experts, residency),
        "lora_configs": [
            {"path": _path(weights, locations), "strength": strength}
            for weights, strength in adapters
            if weights is not None
        ],
        "torch_dtype": spec.dtype.value,
        "attention_config": _attention(spec),
        "compile_config": _compile(runtime.compile),
        "quant_config": _quantization(spec),
        "parallel_config": _defaults("ParallelConfig")
        | degrees
        | {
            "device_ids": list(range(ranks)) if ranks > 1 else None,
            "enable_fsdp": parallel.fsdp,
            "timeout": parallel.timeout_seconds,
        },
        "feature_cache_config": _defaults("FeatureCacheConfig")
        | ({} if cache is None else {"enabled": True, "n_derivatives": cache.derivatives}),
    }


def _encoder(spec: InferSpec, name: str) -> dict[str, Any]:
    residency = spec.runtime.residency
    return _defaults("ModelRuntimeConfig") | {
        "offload_config": _offload(residency.encoders, residency),
        "torch_dtype": get(spec, f"{name}.dtype").value,
    }


def _solver(spec: InferSpec, pipeline: str) -> str:
    if spec.sampler.solver is not Solver.EULER:
        return "unipc"
    # Its name says another solver, but it is what builds TeleFuser's Euler sampler there.
    return "dpm++" if pipeline == TI2V else "euler"


def _offload(wait: Residency, residency: ResidencySpec) -> dict[str, Any]:
    kind = "ASYNC_CPU_OFFLOAD"
    if wait is not Residency.LAYERWISE:
        kind = "NO_CPU_OFFLOAD" if wait is Residency.RESIDENT else "MODEL_CPU_OFFLOAD"
    elif residency.prefetch == 0 and residency.share == 1:
        kind = "SEQUENTIAL_CPU_OFFLOAD"
    return {
        "offload_type": kind,
        "pin_cpu_memory": residency.pin_memory,
        "offload_ratio": residency.share,
        "prefetch_size": residency.prefetch,
    }


def _attention(spec: InferSpec) -> dict[str, Any]:
    attention, sparse = spec.runtime.attention, spec.sparse_attention
    made = _defaults("AttentionConfig") | {"sparse_config": None}
    if sparse is None:
        return made | {"attn_impl": _IMPL.get(attention, "TORCH_SDPA")}
    return made | {
        "attn_impl": "RADIAL_ATTN" if sparse.pattern is SparsePattern.RADIAL else "LOCAL_SPARSE_ATTN",
        "sparse_config": {
            "sparse_impl": sparse.pattern.value,
            "dense_timesteps": sparse.dense_steps,
            "dense_layers": sparse.dense_layers,
            "decay_factor": sparse.decay_factor,
            "local_window_size": sparse.window,
            "block_size": sparse.block_size,
            "use_sage_attention": attention is AttentionImpl.SAGE,
        },
    }


def _compile(compile: CompileSpec) -> dict[str, Any]:
    return _defaults("CompileConfig") | {
        "enabled": compile.enabled,
        "backend": compile.backend.value,
        "fullgraph": compile.fullgraph and compile.enabled,
        "dynamic": compile.dynamic if compile.enabled else None,
        "mode": None if compile.mode is CompileMode.DEFAULT else compile.mode.value,
    }


def _quantization(spec: InferSpec) -> dict[str, Any]:
    quantization, made = spec.quantization, _defaults("QuantConfig")
    if quantization is None:
        return made
    whole = quantization.modules == ("*",)
    blocks = quantization.format not in (QuantFormat.FP8, QuantFormat.INT8, QuantFormat.NF4)
    return made | {
        "enabled": True,
        "quant_type": _QUANT[quantization.format],
        "group_size": quantization.group_size if blocks else NO_GROUPS,
        "quantize_modules": None if whole else list(_their_modules(quantization.modules, spec.model)),
        "skip_modules": list(_their_modules(quantization.skip, spec.model)),
    }


def _their_modules(patterns: tuple[str, ...], model: ModelSpec) -> Iterator[str]:
    """The original names; a pattern that has none is left out, and told as lost."""
    for pattern in patterns:
        if pattern == "condition_embedder":
            yield from condition_names(model)
        elif pattern in _OURS:
            yield _OURS[pattern]
        elif our_module(pattern) == pattern:
            yield pattern


def _defaults(owner: str) -> dict[str, Any]:
    """An object of one class as TeleFuser makes it, in the class's order."""
    made: dict[str, JSON] = {}
    for name, row in rows_of(owner).items():
        if name == "compile":
            continue
        if isinstance(row.holds, str) and not row.many:
            made[name] = None if row.optional else _defaults(row.holds)
        else:
            made[name] = [] if row.many and isinstance(row.holds, str) else _listed(row.default)
    return made


def _listed(value: Any) -> JSON:
    return list(value) if is_tuple(value) else value


def _arguments(spec: InferSpec) -> Iterator[tuple[str, JSON]]:
    """The arguments of `__call__` that say the spec's values."""
    single = spec.boundary is None
    other = ("cfg_scale_high", "cfg_scale_low", "boundary") if single else ("cfg_scale",)
    cell = spec.autoencoder.spatial_stride
    for name, row in rows_of(CALL).items():
        if not row.target or name in other:
            continue
        value = get(spec, row.target.split(", ")[0])
        if not name.startswith("tile_"):
            yield name, value
        elif get(spec, "autoencoder.tiling"):
            yield name, [pixels // cell for pixels in value]


def _node(value: JSON) -> Node:
    """Data as if it were read from a file of one line."""
    if isinstance(value, dict):
        return Node(Mapping(tuple((key, _node(below)) for key, below in value.items())), 1)
    if isinstance(value, list):
        return Node(Sequence(tuple(map(_node, value))), 1)
    return Node(value, 1)
