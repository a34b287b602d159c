"""Layer 2 of a dump as values of our spec: all stages, and what the pipeline says itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mm_config.importing.telefuser.config import Config, Findings, Value
from mm_config.importing.telefuser.families import W22, Known
from mm_config.importing.telefuser.locations import Hint, named_after
from mm_config.importing.telefuser.networks import DEGREES, Said, merged, network_said, parallel_said, unread
from mm_config.importing.telefuser.runtime_rows import ATTENTION
from mm_config.importing.verdict import Verdict
from mm_config.specs.diffusion import SigmaTable, Solver
from mm_config.specs.dtype import Dtype
from mm_config.specs.lora import AppliedLoraSpec
from mm_config.specs.parallel import AttentionImpl
from mm_config.specs.serving import Residency

_RESIDENCY = {
    "NO_CPU_OFFLOAD": Residency.RESIDENT,
    "MODEL_CPU_OFFLOAD": Residency.SWAP,
    "SEQUENTIAL_CPU_OFFLOAD": Residency.LAYERWISE,
    "ASYNC_CPU_OFFLOAD": Residency.LAYERWISE,
}
_SAVING = tuple(Residency)
"""From the residency that needs most memory of the device to the one that needs least."""
_DEVICES = ("cuda", "npu", "cpu")


def _network_fields(pipeline: str) -> tuple[str, ...]:
    """The fields of a pipeline's configuration that hold denoising networks."""
    return ("dit_high_config", "dit_low_config") if pipeline == W22 else ("dit_config",)


def _encoder_fields(known: Known) -> dict[str, str]:
    """The fields that hold encoders, and what of our spec they are."""
    image = {} if known.family.image_encoder is None else {"clip_config": "image_encoder"}
    return {"text_encoding_config": "text_encoder", **image, "vae_config": "autoencoder"}


def layer2_said(layer2: Config, dump: Config, known: Known, found: Findings) -> tuple[Said, tuple[Hint, ...]]:
    """What the pipeline's configuration says, and where its adapters lay."""
    networks = [layer2.inside(name) for name in _network_fields(known.pipeline)]
    encoders = {name: layer2.inside(field) for field, name in _encoder_fields(known).items()}
    denoising = layer2.at("enable_denoising_parallel")
    each: list[Said] = []
    for network in networks:
        parallel = parallel_said(network, denoising, found)
        each.append(network_said(network, known.family.model, found) | parallel)
    said = merged(each[0], each[-1], found)
    _encoders(encoders, found)
    for name, config in encoders.items():
        dtype = config.at("torch_dtype")
        said[f"{name}.dtype"] = (Dtype(dtype.value), dtype)
    said |= _residency(networks, list(encoders.values()), found)
    adapters, hints = _adapters(networks)
    said |= adapters
    said |= _solver(layer2.at("sample_solver"), known, found)
    tiles = layer2.at("enable_vae_parallel")
    if tiles.value:
        said["runtime.parallel.autoencoder"] = (True, tiles)
        said["autoencoder.tiling"] = (True, tiles)
    said |= _device(dump, [*networks, *encoders.values()], found)
    _pipeline(layer2, dump, networks[0], known, found)
    return said, hints


def _encoders(encoders: dict[str, Config], found: Findings) -> None:
    """What our encoders don't do."""
    for name, config in encoders.items():
        impl = config.inside("attention_config").at("attn_impl")
        if ATTENTION.get(impl.value, AttentionImpl.SAGE) is AttentionImpl.SAGE:
            found.refuse(impl, f"{impl.value} is not exact, and the {name} has exact attention alone")
        found.remark(impl, Verdict.DERIVED, "encoders take the device's exact attention")
        unread(config.inside("attention_config").inside("sparse_config"), found, "attn_impl is not sparse")
        for field, what in (("quant_config", "quantised"), ("feature_cache_config", "cached")):
            enabled = config.inside(field).at("enabled")
            if enabled.value:
                found.refuse(enabled, f"the {name} can't be {what}; only denoising networks can")
            unread(config.inside(field), found, "off")
        for adapter in config.many("lora_configs"):
            found.refuse(adapter.at("path"), f"the {name} takes no adapters")
        compiled = config.inside("compile_config")
        unread(compiled, found, "compilation is off")
        for value in (config.at("compile"), compiled.at("enabled")):
            if value.value:
                found.disagree(value, "encoders are not compiled here; the result is the same")
        parallel = config.inside("parallel_config")
        for fact in found.facts:
            if fact.key.startswith(f"{parallel.key}.") and fact.row and fact.row.verdict is Verdict.MAPPED:
                found.remarks[fact.key] = (Verdict.DERIVED, "encoders are whole on each rank")
        for degree in DEGREES:
            if parallel.at(degree).value != 1:
                text = "the autoencoder's tiles are shared by enable_vae_parallel, other encoders are whole"
                found.disagree(parallel.at(degree), text)


def _residency(networks: list[Config], encoders: list[Config], found: Findings) -> Said:
    said: Said = {}
    for group, configs in (("experts", networks), ("encoders", encoders)):
        types = [config.inside("offload_config").at("offload_type") for config in configs]
        least = max(types, key=lambda value: _SAVING.index(_RESIDENCY[value.value]))
        said[f"runtime.residency.{group}"] = (_RESIDENCY[least.value], least)
        for value in types:
            if _RESIDENCY[value.value] is not _RESIDENCY[least.value]:
                found.disagree(value, f"the {group} wait alike here: as {least.key}, which saves most memory")
    for config in (config.inside("offload_config") for config in (*networks, *encoders)):
        kind = config.at("offload_type")
        own: Said = {}
        if kind.value != "NO_CPU_OFFLOAD":
            own["runtime.residency.pin_memory"] = _taken(config.at("pin_cpu_memory"))
        else:
            found.remark(config.at("pin_cpu_memory"), Verdict.DEAD, "nothing is offloaded")
        if kind.value == "ASYNC_CPU_OFFLOAD":
            own["runtime.residency.share"] = _taken(config.at("offload_ratio"))
            own["runtime.residency.prefetch"] = _taken(config.at("prefetch_size"))
        else:
            for name in ("offload_ratio", "prefetch_size"):
                found.remark(config.at(name), Verdict.DEAD, f"{kind.value} does not read it")
        if kind.value == "SEQUENTIAL_CPU_OFFLOAD":
            own["runtime.residency.share"] = (1.0, kind)
            own["runtime.residency.prefetch"] = (0, kind)
        for path, (value, where) in own.items():
            if path in said and said[path][0] != value:
                found.disagree(where, f"the spec has one {path}; it takes {said[path][1].key}")
            said.setdefault(path, (value, where))
    return said


def _adapters(networks: list[Config]) -> tuple[Said, tuple[Hint, ...]]:
    """Adapters of both experts with equal strengths are pairs, in order."""
    lists = [network.many("lora_configs") for network in networks]
    if not any(lists):
        return {}, ()
    first = next(adapter for adapters in lists for adapter in adapters)
    named = named_after(
        {adapter.at("path").key: adapter.at("path").value for adapters in lists for adapter in adapters}
    )
    weights = [[named[adapter.at("path").key][0] for adapter in adapters] for adapters in lists]
    strengths = [[adapter.at("strength").value for adapter in adapters] for adapters in lists]
    if len(lists) == 1:
        made = [
            AppliedLoraSpec(high_noise=one, strength=by)
            for one, by in zip(weights[0], strengths[0], strict=True)
        ]
    elif strengths[0] == strengths[1]:
        made = [
            AppliedLoraSpec(high_noise=high, low_noise=low, strength=by)
            for high, low, by in zip(*weights, strengths[0], strict=True)
        ]
    else:
        made = [
            AppliedLoraSpec(high_noise=one, strength=by)
            for one, by in zip(weights[0], strengths[0], strict=True)
        ]
        made += [
            AppliedLoraSpec(low_noise=one, strength=by)
            for one, by in zip(weights[1], strengths[1], strict=True)
        ]
    return {"loras": (tuple(made), first.at("path"))}, tuple(hint for _, hint in named.values())


def _solver(solver: Value, known: Known, found: Findings) -> Said:
    if solver.value == "mix-euler":
        found.refuse(solver, "mix-euler walks a table of its own, which has no counterpart; choose euler")
        return {}
    if solver.value == "unipc":
        official: Said = {
            "sampler.solver": (Solver.UNIPC, solver),
            "sampler.sigmas": (SigmaTable.WAN_OFFICIAL, solver),
        }
        return official | ({"sampler.timesteps": ((), solver)} if known.family.distilled else {})
    if solver.value == "dpm++":
        text = "builds TeleFuser's Euler sampler, no DPM-Solver++: the spec says what ran, euler"
        found.disagree(solver, text)
    if known.family.distilled:
        # The listed timesteps are the points of the Euler sampler's table for as many steps.
        return {}
    return {"sampler.solver": (Solver.EULER, solver), "sampler.sigmas": (SigmaTable.FULL_RANGE, solver)}


def _device(dump: Config, stages: list[Config], found: Findings) -> Said:
    device = dump.at("device")
    match = re.fullmatch(r"([a-z]+)(:\d+)?", device.value)
    kind = match[1] if match else device.value
    if kind not in _DEVICES:
        found.refuse(device, f"expected {', '.join(_DEVICES)}, got {device.value!r}")
        return {}
    for stage in stages:
        own = stage.at("device_type")
        if own.value is not None and own.value.partition(":")[0] != kind:
            found.disagree(own, f"all networks work on one device here: {kind}")
    return {"runtime.device": (kind, device)}


def _pipeline(layer2: Config, dump: Config, network: Config, known: Known, found: Findings) -> None:
    """Values of the pipeline that follow from others."""
    for name, why in _unread_stages(layer2, known):
        unread(layer2.inside(name), found, why)
    latents, computed = dump.at("torch_dtype"), network.at("torch_dtype")
    if latents.value != computed.value:
        text = f"is another than {computed.key}, {computed.value}; latents are always float32 here"
        found.disagree(latents, text)
    if known.pipeline == "Wan21VideoPipeline":
        stage, image = layer2.at("enable_clip_stage"), known.family.image_encoder is not None
        if stage.given and stage.value is not image:
            found.refuse(
                stage, f"is {stage.value}, but {known.title} has {'an' if image else 'no'} image branch"
            )


def _unread_stages(layer2: Config, known: Known) -> Iterator[tuple[str, str]]:
    if layer2.has("vfi_config"):
        yield "vfi_config", "enable_vfi is off"
    if layer2.has("clip_config") and known.family.image_encoder is None:
        yield "clip_config", f"{known.title} has no image branch"


def _taken(value: Value) -> tuple[object, Value]:
    return value.value, value
