"""Readings of what decides the videos: formats, attention, approximations and the sampler."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mm_config.importing.names import MODULES
from mm_config.importing.telefuser.meanings import APPROXIMATE, ATTENTION, QUANT, SPARSE
from mm_config.importing.telefuser.readings import Config, Dump, Finding, Said, Told, Value, Wrong, taken
from mm_config.importing.verdict import Verdict
from mm_config.rules.modules import BLOCK_OF_FORMAT
from mm_config.specs.diffusion import SigmaTable, Solver
from mm_config.specs.dtype import Dtype
from mm_config.specs.kinds import ModelSpec
from mm_config.specs.parallel import AttentionImpl
from mm_config.specs.serving import (
    ApproximateAttention,
    FeatureCacheSpec,
    QuantizationSpec,
    SparseAttentionSpec,
    SparsePattern,
)

_NO_GROUPS = 16
"""TeleFuser's group_size, which formats with a scale per row leave unread."""
_MODULES = {**MODULES, "blocks": "blocks.*"}
_CONDITION = ("text_embedding", "time_embedding", "time_projection")


def formats(dump: Dump) -> Iterator[Finding]:
    """`dtype` of the networks and of each encoder; latents are float32 whatever the pipeline says."""
    for network in dump.networks:
        value = network.at("torch_dtype")
        yield Said("dtype", Dtype(value.value), value)
    for name, encoder in dump.encoders.items():
        value = encoder.at("torch_dtype")
        yield Said(f"{name}.dtype", Dtype(value.value), value)
    latents, first = dump.root.at("torch_dtype"), dump.networks[0].at("torch_dtype")
    if latents.value != first.value:
        text = f"is another than {first.key}, {first.value}; latents are always float32 here"
        yield Told(latents, Verdict.CONFLICT, text)


def attention(dump: Dump) -> Iterator[Finding]:
    """`runtime.attention`, `approximate_attention` and `sparse_attention`; encoders have exact attention."""
    for network in dump.networks:
        yield from _attention(network.inside("attention_config"))
    for name, encoder in dump.encoders.items():
        config = encoder.inside("attention_config")
        impl = config.at("attn_impl")
        yield Told(config.inside("sparse_config"), Verdict.DEAD, "encoders have exact attention")
        if impl.value not in ATTENTION:
            text = f"{impl.value} is not exact; the {name} has exact attention alone"
            yield Told(impl, Verdict.CONFLICT, text)
        else:
            yield Told(impl, Verdict.DERIVED, "encoders take the device's exact attention")


def _attention(config: Config) -> Iterator[Finding]:
    impl, sparse = config.at("attn_impl"), config.inside("sparse_config")
    pattern = sparse.at("sparse_impl")
    if impl.value == "SPARGE_ATTN":
        yield Wrong(impl, "SPARGE_ATTN leaves out keys depending on the data, which has no counterpart")
        return
    exact, approximate = ATTENTION.get(impl.value, AttentionImpl.AUTO), APPROXIMATE.get(impl.value)
    yield Said("runtime.attention", exact, impl)
    if impl.value not in SPARSE:
        if pattern.value is not None:
            yield Wrong(impl, f"is {impl.value}, but sparse_config has the pattern {pattern.value}")
        yield Told(sparse, Verdict.DEAD, "attn_impl is not sparse")
        yield Said("approximate_attention", approximate, impl)
        yield Said("sparse_attention", None, impl)
        return
    own = SPARSE[impl.value]
    if pattern.value not in (None, own.value):
        text = f"is {impl.value}, but sparse_config.sparse_impl is {pattern.value}, not {own.value}"
        yield Wrong(impl, text)
    sage = sparse.at("use_sage_attention")
    yield Said("approximate_attention", ApproximateAttention.SAGE if sage.value else None, sage)
    read, unread, field = ("decay_factor", "local_window_size", "decay_factor")
    if own is SparsePattern.LOCAL:
        read, unread, field = ("local_window_size", "decay_factor", "window")
    yield Told(sparse.at(unread), Verdict.DEAD, f"{own.value} does not read it")
    parts = {
        "pattern": (own, pattern if pattern.given else impl),
        "dense_steps": taken(sparse, "dense_timesteps"),
        "dense_layers": taken(sparse, "dense_layers"),
        "block_size": taken(sparse, "block_size"),
        field: taken(sparse, read),
    }
    yield Said("sparse_attention", SparseAttentionSpec(), impl, parts)


def quantization(dump: Dump) -> Iterator[Finding]:
    """`quantization`; encoders are never quantised."""
    for network in dump.networks:
        yield from _quantization(network.inside("quant_config"), dump.known.family.model)


def _quantization(config: Config, model: ModelSpec) -> Iterator[Finding]:
    enabled = config.at("enabled")
    if not enabled.value:
        yield Told(config, Verdict.DEAD, "quantization is off")
        yield Said("quantization", None, enabled)
        return
    kind, group = config.at("quant_type"), config.at("group_size")
    block = BLOCK_OF_FORMAT.get(QUANT[kind.value])
    if block is None and group.value == _NO_GROUPS:
        yield Told(group, Verdict.DEAD, f"{kind.value} has one scale per row")
    elif group.value != block:
        rule = f"has groups of {block}" if block else f"has one scale per row; leave {_NO_GROUPS} there"
        yield Wrong(group, f"is {group.value}, but {kind.value} {rule}")
    parts: dict[str, tuple[Any, Value]] = {"format": (QUANT[kind.value], kind), "group_size": (block, group)}
    for theirs, ours, whole in (("quantize_modules", "modules", ("*",)), ("skip_modules", "skip", ())):
        names = config.at(theirs)
        if unknown := [name for name in names.value or () if _our_module(name) is None]:
            yield Wrong(names, f"{unknown[0]!r} is none of {', '.join(_MODULES)} or blocks.N")
        parts[ours] = (whole if names.value is None else _our_modules(names.value, model), names)
    yield Said("quantization", QuantizationSpec(), enabled, parts)


def _our_module(name: str) -> str | None:
    """Our pattern for a module of the original networks, or None."""
    return name if re.fullmatch(r"blocks\.(0|[1-9]\d{0,3})", name) else _MODULES.get(name)


def _our_modules(names: tuple[str, ...], model: ModelSpec) -> tuple[str, ...]:
    """Our patterns for modules of the original networks; all embeddings together are one."""
    whole = _CONDITION if getattr(model, "image_dim", None) is None else (*_CONDITION, "img_emb")
    together = set(whole) <= set(names)
    patterns = ["condition_embedder" if together and name in whole else _our_module(name) for name in names]
    return tuple(dict.fromkeys(pattern for pattern in patterns if pattern))


def feature_cache(dump: Dump) -> Iterator[Finding]:
    """`feature_cache`, whose calibration no dump holds."""
    for network in dump.networks:
        config = network.inside("feature_cache_config")
        enabled = config.at("enabled")
        if not enabled.value:
            yield Told(config, Verdict.DEAD, "the cache is off")
            yield Said("feature_cache", None, enabled)
            continue
        cache = FeatureCacheSpec()
        text = (
            f"chooses a calibration file, which the dump does not hold; the spec has dense_share "
            f"{cache.dense_share}, threshold {cache.threshold}, max_skipped {cache.max_skipped} (TeleFuser's "
            "file of Wan2.2 T2V-A14B: 0.2, 0.24, 6)"
        )
        yield Told(config.at("model_type"), Verdict.DERIVED, text)
        parts = {"derivatives": taken(config, "n_derivatives")}
        yield Said("feature_cache", cache, enabled, parts)


def encoders(dump: Dump) -> Iterator[Finding]:
    """What networks alone can: encoders are whole on each rank, exact, and not compiled."""
    for name, encoder in dump.encoders.items():
        for field, what in (("quant_config", "quantised"), ("feature_cache_config", "cached")):
            yield Told(encoder.inside(field), Verdict.DEAD, "off")
            enabled = encoder.inside(field).at("enabled")
            if enabled.value:
                text = f"the {name} is not {what} here: its result is exact, and it needs more memory"
                yield Told(enabled, Verdict.REFUSED, text)
        for adapter in encoder.many("lora_configs"):
            yield Wrong(adapter.at("path"), f"the {name} takes no adapters")
        compiled = encoder.inside("compile_config")
        yield Told(compiled, Verdict.DEAD, "encoders are not compiled here; the result is the same")
        if encoder.at("compile").value:
            text = "encoders are not compiled here; the result is the same"
            yield Told(encoder.at("compile"), Verdict.OUTSIDE, text)
        yield Told(encoder.inside("parallel_config"), Verdict.DERIVED, "encoders are whole on each rank")


def solver(dump: Dump) -> Iterator[Finding]:
    """`sampler.solver` with its table of noise levels."""
    value: Value = dump.pipeline.at("sample_solver")
    distilled = dump.known.family.distilled
    if value.value == "mix-euler":
        yield Wrong(value, "mix-euler walks a table of its own, which has no counterpart; choose euler")
        return
    if value.value == "unipc":
        yield Said("sampler.solver", Solver.UNIPC, value)
        yield Said("sampler.sigmas", SigmaTable.WAN_OFFICIAL, value)
        if distilled:
            yield Said("sampler.timesteps", (), value)
        return
    if value.value == "dpm++":
        text = "builds TeleFuser's Euler sampler, no DPM-Solver++: the spec says what ran, euler"
        yield Told(value, Verdict.CONFLICT, text)
    # The timesteps that a distilled family lists are the points of the Euler sampler's table already.
    if not distilled:
        yield Said("sampler.solver", Solver.EULER, value)
        yield Said("sampler.sigmas", SigmaTable.FULL_RANGE, value)


def pipeline(dump: Dump) -> Iterator[Finding]:
    """Stages of the pipeline that the family has, has not, or that nothing here does."""
    own, image = dump.pipeline, dump.known.family.image_encoder is not None
    kind = dump.root.at("pipeline_type")
    if kind.value != dump.known.pipeline:
        text = f"as {dump.known.pipeline}; its stages run in turn here, and the result is the same"
        yield Told(kind, Verdict.DERIVED, text)
    yield Told(own.inside("vfi_config"), Verdict.DEAD, "no network interpolates frames here")
    if own.at("enable_vfi").value:
        text = "no network interpolates frames here: the video has the frames that are denoised"
        yield Told(own.at("enable_vfi"), Verdict.REFUSED, text)
    if own.owner != "Wan21VideoPipelineConfig":
        return
    stage, title = own.at("enable_clip_stage"), dump.known.title
    if not image:
        yield Told(own.inside("clip_config"), Verdict.DEAD, f"{title} has no image branch")
    if not image and stage.value:
        yield Told(stage, Verdict.CONFLICT, f"the clip stage has no use without an image: {title}")
    if image and stage.given and not stage.value:
        text = f"is off, but {title} has an image branch: the spec gives it the image's features"
        yield Told(stage, Verdict.CONFLICT, text)
