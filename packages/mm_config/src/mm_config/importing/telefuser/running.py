"""Readings of where and how fast something is computed: none of them changes a video or stops an import."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from mm_config.importing.telefuser.meanings import BACKENDS, MODES, OFFLOAD
from mm_config.importing.telefuser.readings import Config, Dump, Finding, Said, Told, Value, taken
from mm_config.importing.verdict import Verdict
from mm_config.specs.infer import InferSpec
from mm_config.specs.parallel import CompileMode, CompileSpec
from mm_config.specs.serving import GuidanceMode, Residency

DEGREES = ("dp_degree", "cfg_degree", "sp_ulysses_degree", "sp_ring_degree", "pp_degree", "tp_degree")
_SAVING = tuple(Residency)
"""From the residency that needs most memory of the device to the one that needs least."""
_DEVICES = ("cuda", "npu", "cpu")

# Presets of torch.compile as the options they stand for: max_autotune, triton_cudagraphs,
# coordinate_descent_tuning (torch._inductor.list_mode_options).
_PRESETS = {
    (False, False, False): CompileMode.DEFAULT,
    (False, True, False): CompileMode.REDUCE_OVERHEAD,
    (True, True, True): CompileMode.MAX_AUTOTUNE,
    (True, False, True): CompileMode.MAX_AUTOTUNE_NO_CUDAGRAPHS,
}
_OPTIONS = ("max_autotune", "triton_cudagraphs", "coordinate_descent_tuning")


def device(dump: Dump) -> Iterator[Finding]:
    """`runtime.device`; its number is each rank's own."""
    value = dump.root.at("device")
    kind = re.sub(r":\d+$", "", value.value)
    if kind in _DEVICES:
        yield Said("runtime.device", kind, value)
    else:
        text = f"expected {', '.join(_DEVICES)}, got {value.value!r}; the spec takes an accelerator it finds"
        yield Told(value, Verdict.CONFLICT, text)
    for stage in (*dump.networks, *dump.encoders.values()):
        own = stage.at("device_type")
        if own.value is not None and own.value.partition(":")[0] != kind:
            yield Told(own, Verdict.CONFLICT, f"all networks work on one device here: {kind}")


def compilation(dump: Dump) -> Iterator[Finding]:
    """`runtime.compile`, of the older switch or of the newer options."""
    for network in dump.networks:
        older, config = network.at("compile"), network.inside("compile_config")
        if not older.given:
            yield from _compilation(config)
            continue
        if config.given:
            yield Told(older, Verdict.CONFLICT, "stands beside compile_config, which replaced it and counts")
            yield from _compilation(config)
            continue
        # torch.compile's own default lets the graph break.
        parts: dict[str, tuple[Any, Value]] = {"enabled": (older.value, older)}
        parts |= {"fullgraph": (False, older)} if older.value else {}
        yield Said("runtime.compile", CompileSpec(), older, parts)


def _compilation(config: Config) -> Iterator[Finding]:
    enabled, mode, backend = config.at("enabled"), config.at("mode"), config.at("backend")
    off = {"enabled": (False, enabled)}
    if not enabled.value:
        yield Told(config, Verdict.DEAD, "compilation is off")
        yield Said("runtime.compile", CompileSpec(), enabled, off)
        return
    if backend.value not in BACKENDS:
        yield Told(backend, Verdict.CONFLICT, f"{backend.value} compiles nothing, so nothing is compiled")
        yield Said("runtime.compile", CompileSpec(), enabled, off)
        return
    fullgraph, dynamic = config.at("fullgraph"), config.at("dynamic")
    if fullgraph.value and dynamic.value:
        text = "TeleFuser's fullgraph and dynamic exclude each other; the spec keeps fullgraph"
        yield Told(dynamic, Verdict.CONFLICT, text)
    options = tuple(bool(config.at(name).value) for name in _OPTIONS)
    preset = _PRESETS.get((options[0], options[1], options[2]), CompileMode.DEFAULT)
    if mode.value is not None:
        if any(options):
            yield Told(mode, Verdict.CONFLICT, "stands beside options; TeleFuser takes one; the mode counts")
        preset = MODES[mode.value]
    elif any(options) and preset is CompileMode.DEFAULT:
        first = next(config.at(name) for name in _OPTIONS if config.at(name).value)
        text = "these options are none of torch.compile's presets; the spec takes the default one"
        yield Told(first, Verdict.CONFLICT, text)
    parts: dict[str, tuple[Any, Value]] = {
        "enabled": (True, enabled),
        "backend": (BACKENDS[backend.value], backend),
        "mode": (preset, mode),
        "fullgraph": (fullgraph.value, fullgraph),
        "dynamic": (bool(dynamic.value) and not fullgraph.value, dynamic),
    }
    yield Said("runtime.compile", CompileSpec(), enabled, parts)


def ranks(dump: Dump) -> Iterator[Finding]:
    """`runtime.guidance` and `runtime.parallel`: the degrees, where they are read at all."""
    denoising = dump.pipeline.at("enable_denoising_parallel")
    for network in dump.networks:
        config = network.inside("parallel_config")
        count = math.prod(max(config.at(name).value, 1) for name in DEGREES)
        ids, cfg = config.at("device_ids"), config.at("cfg_degree")
        if count > 1 and denoising.given and not denoising.value:
            yield Told(config, Verdict.DEAD, "enable_denoising_parallel is off")
            text = f"is off, but the degrees make {count} ranks: TeleFuser leaves them unread"
            yield Told(denoising, Verdict.CONFLICT, text)
            yield Said("runtime.guidance", GuidanceMode.SEQUENTIAL, cfg)
            continue
        if ids.value is not None and len(ids.value) != count:
            text = f"has {len(ids.value)} devices, but the product of the degrees, {count}, counts"
            yield Told(ids, Verdict.CONFLICT, text)
        if cfg.value not in (1, 2):
            yield Told(cfg, Verdict.CONFLICT, f"guidance has two passes, so 1 or 2 ranks, got {cfg.value}")
        guidance = GuidanceMode.PARALLEL if cfg.value > 1 else GuidanceMode.SEQUENTIAL
        yield Said("runtime.guidance", guidance, cfg)
        for field, theirs in (
            ("data", "dp_degree"),
            ("ulysses", "sp_ulysses_degree"),
            ("ring", "sp_ring_degree"),
            ("tensor", "tp_degree"),
            ("fsdp", "enable_fsdp"),
            ("timeout_seconds", "timeout"),
        ):
            yield Said(f"runtime.parallel.{field}", *taken(config, theirs))


def tiles(dump: Dump) -> Iterator[Finding]:
    """Whether the ranks that make one video share the autoencoder's tiles."""
    value, denoising = dump.pipeline.at("enable_vae_parallel"), dump.pipeline.at("enable_denoising_parallel")
    config = dump.networks[0].inside("parallel_config")
    ranks_of_one = [config.at(name).value for name in DEGREES if name not in ("dp_degree", "pp_degree")]
    if value.value and max(ranks_of_one) > 1 and (denoising.value or not denoising.given):
        yield Said("runtime.parallel.autoencoder", True, value)
        yield Said("autoencoder.tiling", True, value)
    elif value.value:
        yield Told(value, Verdict.CONFLICT, "one rank makes each video, and shares its tiles with none")


def ranks_of(spec: InferSpec) -> int:
    """The ranks that make one run: the product of the degrees."""
    parallel = spec.runtime.parallel
    both = 2 if spec.runtime.guidance is GuidanceMode.PARALLEL else 1
    return math.prod((parallel.data, parallel.ulysses, parallel.ring, parallel.tensor, both))


def residency(dump: Dump) -> Iterator[Finding]:
    """`runtime.residency`: experts wait alike, as the one that saves most memory, and so do encoders."""
    encoders = tuple(dump.encoders.values())
    for group, stages in (("experts", dump.networks), ("encoders", encoders)):
        types = [stage.inside("offload_config").at("offload_type") for stage in stages]
        saving = sorted(types, key=lambda value: -_SAVING.index(OFFLOAD[value.value]))
        for value in saving:
            yield Said(f"runtime.residency.{group}", OFFLOAD[value.value], value)
    for config in (stage.inside("offload_config") for stage in (*dump.networks, *encoders)):
        kind = config.at("offload_type")
        if kind.value == "NO_CPU_OFFLOAD":
            yield Told(config.at("pin_cpu_memory"), Verdict.DEAD, "nothing is offloaded")
        else:
            yield Said("runtime.residency.pin_memory", *taken(config, "pin_cpu_memory"))
        if kind.value == "ASYNC_CPU_OFFLOAD":
            yield Said("runtime.residency.share", *taken(config, "offload_ratio"))
            yield Said("runtime.residency.prefetch", *taken(config, "prefetch_size"))
            continue
        for name in ("offload_ratio", "prefetch_size"):
            yield Told(config.at(name), Verdict.DEAD, f"{kind.value} does not read it")
        if kind.value == "SEQUENTIAL_CPU_OFFLOAD":
            yield Said("runtime.residency.share", 1.0, kind)
            yield Said("runtime.residency.prefetch", 0, kind)
