"""The runtime configuration of denoising networks as values of our spec."""

from __future__ import annotations

import math
import re
from typing import Any, TypeAlias

from mm_config.importing.names import MODULES
from mm_config.importing.telefuser.config import Config, Findings, Value
from mm_config.importing.telefuser.runtime_rows import ATTENTION, BACKENDS, MODES, QUANT, SPARSE
from mm_config.importing.verdict import Verdict
from mm_config.rules.modules import BLOCK_OF_FORMAT
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import ModelSpec
from mm_config.specs.parallel import AttentionImpl, CompileMode
from mm_config.specs.serving import (
    FeatureCacheSpec,
    GuidanceMode,
    QuantizationSpec,
    SparseAttentionSpec,
    SparsePattern,
)

Said: TypeAlias = dict[str, tuple[Any, Value]]
"""Values by canonical path without `spec.`, each with the value of the dump that says it."""

DEGREES = ("dp_degree", "cfg_degree", "sp_ulysses_degree", "sp_ring_degree", "pp_degree", "tp_degree")
_NO_GROUPS = 16
"""TeleFuser's group_size, which formats with a scale per row leave unread."""

# Presets of torch.compile as the options they stand for: max_autotune, triton_cudagraphs,
# coordinate_descent_tuning (torch._inductor.list_mode_options).
_PRESETS = {
    (False, False, False): CompileMode.DEFAULT,
    (False, True, False): CompileMode.REDUCE_OVERHEAD,
    (True, True, True): CompileMode.MAX_AUTOTUNE,
    (True, False, True): CompileMode.MAX_AUTOTUNE_NO_CUDAGRAPHS,
}

_MODULES = {**MODULES, "blocks": "blocks.*"}
_CONDITION = ("text_embedding", "time_embedding", "time_projection")


def network_said(network: Config, model: ModelSpec, found: Findings) -> Said:
    """What the configuration of one network says, but for offloading and adapters."""
    dtype = network.at("torch_dtype")
    return {
        "dtype": (Dtype(dtype.value), dtype),
        **_attention(network.inside("attention_config"), found),
        **_quantization(network.inside("quant_config"), model, found),
        **_feature_cache(network.inside("feature_cache_config"), found),
        **_compile(network, found),
    }


def merged(first: Said, second: Said, found: Findings) -> Said:
    """What two experts say together: results must be said alike, of the rest the first expert counts."""
    for path in {**first, **second}:
        mine, theirs = first.get(path), second.get(path)
        if mine is None or theirs is None or mine[0] == theirs[0]:
            continue
        if path.startswith("runtime."):
            found.disagree(theirs[1], f"the spec has one {path} for both experts; it takes {mine[1].key}")
        else:
            found.refuse(theirs[1], f"differs from {mine[1].key}, but both experts share spec.{path}")
    return first


def unread(config: Config, found: Findings, why: str, but: Value | None = None) -> None:
    """Notes that nothing reads the fields of an object, `but` one."""
    for fact in found.facts:
        inside = fact.key.startswith(f"{config.key}.") and (but is None or fact.key != but.key)
        if inside and fact.row is not None:
            found.remarks[fact.key] = (Verdict.DEAD, why)


def _attention(config: Config, found: Findings) -> Said:
    impl, sparse = config.at("attn_impl"), config.inside("sparse_config")
    pattern = sparse.at("sparse_impl")
    if impl.value == "SPARGE_ATTN":
        found.refuse(impl, "SPARGE_ATTN leaves out keys depending on the data, which has no counterpart")
        return {}
    if impl.value in ATTENTION:
        if pattern.value is not None:
            found.refuse(impl, f"is {impl.value}, but sparse_config has the pattern {pattern.value}")
        unread(sparse, found, "attn_impl is not sparse")
        return {"runtime.attention": (ATTENTION[impl.value], impl), "sparse_attention": (None, impl)}
    if pattern.value != SPARSE[impl.value].value:
        own = SPARSE[impl.value].value
        found.refuse(impl, f"is {impl.value}, but sparse_config.sparse_impl is {pattern.value}, not {own}")
        return {}
    sage = sparse.at("use_sage_attention")
    said: Said = {
        "runtime.attention": (AttentionImpl.SAGE if sage.value else AttentionImpl.AUTO, sage),
        "sparse_attention": (SparseAttentionSpec(), impl),
        "sparse_attention.pattern": (SPARSE[impl.value], pattern),
    }
    own, other = ("decay_factor", "local_window_size")
    if SPARSE[impl.value] is SparsePattern.LOCAL:
        own, other = other, own
    names = {
        "dense_timesteps": "dense_steps",
        "dense_layers": "dense_layers",
        "block_size": "block_size",
        own: {"decay_factor": "decay_factor", "local_window_size": "window"}[own],
    }
    found.remark(sparse.at(other), Verdict.DEAD, f"{pattern.value} does not read it")
    return said | {f"sparse_attention.{ours}": _of(sparse, theirs) for theirs, ours in names.items()}


def _quantization(config: Config, model: ModelSpec, found: Findings) -> Said:
    enabled = config.at("enabled")
    if not enabled.value:
        unread(config, found, "quantization is off", but=enabled)
        return {"quantization": (None, enabled)}
    kind, group = config.at("quant_type"), config.at("group_size")
    format = QUANT[kind.value]
    block = BLOCK_OF_FORMAT.get(format)
    if block is None and group.value == _NO_GROUPS:
        found.remark(group, Verdict.DEAD, f"{kind.value} has one scale per row")
    elif group.value != block:
        rule = f"has groups of {block}" if block else f"has one scale per row; leave {_NO_GROUPS} there"
        found.refuse(group, f"is {group.value}, but {kind.value} {rule}")
    said: Said = {
        "quantization": (QuantizationSpec(), enabled),
        "quantization.format": (format, kind),
        "quantization.group_size": (block, group),
    }
    for theirs, ours in (("quantize_modules", "modules"), ("skip_modules", "skip")):
        names = config.at(theirs)
        if unknown := [name for name in names.value or () if _our_module(name) is None]:
            found.refuse(names, f"{unknown[0]!r} is none of {', '.join(_MODULES)} or blocks.N")
        else:
            patterns = ("*",) if names.value is None else _our_modules(names.value, model)
            said[f"quantization.{ours}"] = (patterns, names)
    return said


def _our_module(name: str) -> str | None:
    """Our pattern for a module of the original networks, or None."""
    return name if re.fullmatch(r"blocks\.(0|[1-9]\d{0,3})", name) else _MODULES.get(name)


def _our_modules(names: tuple[str, ...], model: ModelSpec) -> tuple[str, ...]:
    """Our patterns for modules of the original networks; all embeddings together are one."""
    whole = _condition_names(model)
    together = set(whole) <= set(names)
    patterns = ["condition_embedder" if together and name in whole else _our_module(name) for name in names]
    return tuple(dict.fromkeys(pattern for pattern in patterns if pattern))


def _condition_names(model: ModelSpec) -> tuple[str, ...]:
    """The original names of all that `condition_embedder` holds."""
    return _CONDITION if getattr(model, "image_dim", None) is None else (*_CONDITION, "img_emb")


def _feature_cache(config: Config, found: Findings) -> Said:
    enabled = config.at("enabled")
    if not enabled.value:
        unread(config, found, "the cache is off", but=enabled)
        return {"feature_cache": (None, enabled)}
    cache = FeatureCacheSpec()
    found.warnings.append(
        f"{enabled.key}: the calibration file that {config.at('model_type').value!r} chooses is not in the "
        f"dump; the spec has dense_share {cache.dense_share}, threshold {cache.threshold}, max_skipped "
        f"{cache.max_skipped} (TeleFuser's file of Wan2.2 T2V-A14B: 0.2, 0.24, 6)"
    )
    return {"feature_cache": (cache, enabled), "feature_cache.derivatives": _of(config, "n_derivatives")}


def _compile(network: Config, found: Findings) -> Said:
    older, config = network.at("compile"), network.inside("compile_config")
    if older.given and network.has("compile_config"):
        found.refuse(older, "stands beside compile_config, which replaced it; take it out")
        return {}
    if older.given:
        # torch.compile's own default lets the graph break.
        graph: Said = {"runtime.compile.fullgraph": (False, older)} if older.value else {}
        return {"runtime.compile.enabled": (older.value, older), **graph}
    enabled, mode, backend = config.at("enabled"), config.at("mode"), config.at("backend")
    if not enabled.value:
        unread(config, found, "compilation is off", but=enabled)
        return {"runtime.compile.enabled": (False, enabled)}
    fullgraph, dynamic = config.at("fullgraph"), config.at("dynamic")
    if fullgraph.value and dynamic.value:
        found.refuse(dynamic, "TeleFuser's fullgraph and dynamic exclude each other")
    if backend.value not in BACKENDS:
        found.refuse(backend, f"{backend.value} compiles nothing; choose {', '.join(BACKENDS)}")
        return {}
    options = tuple(
        config.at(name).value for name in ("max_autotune", "triton_cudagraphs", "coordinate_descent_tuning")
    )
    preset = _PRESETS.get((options[0], options[1], options[2]))
    if mode.value is not None:
        if any(options):
            found.refuse(mode, "TeleFuser takes a mode or options, not both")
        preset = MODES[mode.value]
    if preset is None:
        found.refuse(config.at("max_autotune"), "these options are none of torch.compile's presets")
        return {}
    return {
        "runtime.compile.enabled": (True, enabled),
        "runtime.compile.backend": (BACKENDS[backend.value], backend),
        "runtime.compile.mode": (preset, mode),
        "runtime.compile.fullgraph": (fullgraph.value, fullgraph),
        "runtime.compile.dynamic": (bool(dynamic.value), dynamic),
    }


def parallel_said(network: Config, denoising: Value, found: Findings) -> Said:
    """What the degrees of a network say.

    Args:
        network: Its configuration.
        denoising: Whether TeleFuser spreads the network over ranks at all.
        found: Takes what is wrong.
    """
    config = network.inside("parallel_config")
    ranks = math.prod(max(config.at(name).value, 1) for name in DEGREES)
    ids, cfg = config.at("device_ids"), config.at("cfg_degree")
    if ranks > 1 and denoising.given and not denoising.value:
        found.disagree(denoising, f"is off, but the degrees make {ranks} ranks: TeleFuser leaves them unread")
        unread(config, found, "enable_denoising_parallel is off")
        return {"runtime.guidance": (GuidanceMode.SEQUENTIAL, cfg)}
    if ids.value is not None and len(ids.value) != ranks:
        found.refuse(ids, f"has {len(ids.value)} devices, but the product of the degrees is {ranks}")
    if cfg.value not in (1, 2):
        found.refuse(cfg, f"guidance has two passes, so 1 or 2 ranks, got {cfg.value}")
    guidance = GuidanceMode.PARALLEL if cfg.value == 2 else GuidanceMode.SEQUENTIAL
    return {
        "runtime.guidance": (guidance, cfg),
        "runtime.parallel.data": _of(config, "dp_degree"),
        "runtime.parallel.ulysses": _of(config, "sp_ulysses_degree"),
        "runtime.parallel.ring": _of(config, "sp_ring_degree"),
        "runtime.parallel.tensor": _of(config, "tp_degree"),
        "runtime.parallel.fsdp": _of(config, "enable_fsdp"),
        "runtime.parallel.timeout_seconds": _of(config, "timeout"),
    }


def ranks_of(spec: InferSpec) -> int:
    """The ranks that make one run: the product of the degrees."""
    parallel = spec.runtime.parallel
    both = 2 if spec.runtime.guidance is GuidanceMode.PARALLEL else 1
    return math.prod((parallel.data, parallel.ulysses, parallel.ring, parallel.tensor, both))


def _of(config: Config, name: str) -> tuple[Any, Value]:
    value = config.at(name)
    return value.value, value
