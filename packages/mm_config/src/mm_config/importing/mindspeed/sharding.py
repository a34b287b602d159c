"""What YAML files and scripts say of ranks, sharding and adapters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mm_config.importing.facts import Fact
from mm_config.importing.mindspeed.files import Files, Known, is_count
from mm_config.importing.mindspeed.keys import FLAG, FSDP2, LAYERZERO, NATIVE
from mm_config.importing.names import ENCODERS, lora_target, module_pattern, patterns_of
from mm_config.importing.readings import Reading, given, refused, said, silent, tried
from mm_config.importing.verdict import Verdict
from mm_config.schema.types import is_tuple

_ALGORITHMS = ("ulysses_cp_algo", "megatron_cp_algo", "hybrid_cp_algo")
_DEGREES = ("--context-parallel-size", "--context-parallel-algo", "--ulysses-degree-in-cp")


def context_parallel(files: Files, known: Known) -> Iterator[Reading]:
    """The degrees of context parallelism."""
    prefix = "runtime.parallel" if files.generation else "parallel"
    size, algorithm = files.fact(FLAG, "--context-parallel-size"), files.fact(FLAG, "--context-parallel-algo")
    degree = files.raw(FLAG, "--context-parallel-size", 1)
    if size is None:
        return
    if not is_count(degree):
        yield refused(size, "expected a number of ranks")
        return
    if degree == 1:
        yield given(size, f"{prefix}.ulysses", 1)
        yield given(size, f"{prefix}.ring", 1)
        return
    word = "megatron_cp_algo" if algorithm is None else algorithm.value
    if algorithm is not None and word not in _ALGORITHMS:
        yield refused(algorithm, f"can't be said here: only {', '.join(_ALGORITHMS)}")
        return
    ulysses, ring = (degree, 1) if word == "ulysses_cp_algo" else (1, degree)
    if word == "hybrid_cp_algo":
        inner = files.raw(FLAG, "--ulysses-degree-in-cp")
        if not is_count(inner) or degree % inner:
            text = f"hybrid_cp_algo needs --ulysses-degree-in-cp, a divisor of {degree}"
            yield refused(files.fact(FLAG, "--ulysses-degree-in-cp") or size, text)
            return
        ulysses, ring = inner, degree // inner
    for flag in _DEGREES:
        if (fact := files.fact(FLAG, flag)) is not None:
            yield given(fact, f"{prefix}.ulysses", ulysses)
            yield given(fact, f"{prefix}.ring", ring)
    if algorithm is None:
        text = f"{prefix}.ring = {degree}: megatron_cp_algo"
        yield said(Verdict.DEFAULT, "--context-parallel-algo", text)


def units(files: Files, known: Known) -> Iterator[Reading]:
    """`fsdp.wrap` and `fsdp.ignore`."""
    wrap, ignored = files.fact(FSDP2, "sub_modules_to_wrap"), files.fact(FSDP2, "ignored_modules")
    if files.holds("fsdp2"):
        if wrap is not None:
            yield from _patterns(wrap, "fsdp.wrap")
        elif files.has(FSDP2):
            yield given("sub_modules_to_wrap", "fsdp.wrap", (), "fsdp.wrap = (): the network is one unit")
        yield from _ignored(ignored)
    if files.holds("layerzero") and files.has(LAYERZERO):
        # The classes that transformer_layers names are the blocks' alone.
        about = files.fact(LAYERZERO, "transformer_layers") or "transformer_layers"
        text = "names classes; the units are the blocks, `blocks.*`"
        yield Reading(about, Verdict.DERIVED, text, "fsdp.wrap", ("blocks.*",))
        yield from _ignored(files.fact(LAYERZERO, "ignored_modules"))
    native = files.fact(NATIVE, "parallel.fsdp_plan.apply_modules")
    if native is not None:
        yield from _patterns(native, "fsdp.wrap")
    yield from _ignored(files.fact(NATIVE, "parallel.fsdp_plan.ignored_modules"))


def _patterns(fact: Fact, target: str) -> Iterator[Reading]:
    found, wrong = tried(fact, patterns_of)
    yield from wrong or (given(fact, target, found),)


def _ignored(fact: Fact | None) -> Iterator[Reading]:
    if fact is None:
        return
    value: Any = fact.value
    if value is None or (is_tuple(value) and set(map(str, value)) <= set(ENCODERS)):
        text = "encoders are whole on each rank (runtime.shard_encoders = False)"
        yield said(Verdict.DERIVED, fact, text)
    elif not is_tuple(value):
        yield refused(fact, "expected a list of modules")
    else:
        inside = [name for name in value if name not in ENCODERS]
        found = [module_pattern(name) if isinstance(name, str) else None for name in inside]
        if None in found:
            yield refused(
                fact, "holds a module that can't be named here; such as ae, text_encoder or predictor.head"
            )
        else:
            yield given(fact, "fsdp.ignore", tuple(found))


def adapters(files: Files, known: Known) -> Iterator[Reading]:
    """`lora.targets`: the layers that adapters are put on."""
    for kind, path in ((FLAG, "--lora-target-modules"), (NATIVE, "training.lora.target_modules")):
        fact = files.fact(kind, path)
        if fact is None or not files.holds("lora"):
            continue
        words = fact.value if is_tuple(fact.value) else (fact.value,)
        names = [name for word in words for name in str(word).split(",") if name]
        targets = [lora_target(name) for name in names]
        if None in targets or not names:
            wrong = next((name for name, target in zip(names, targets, strict=True) if target is None), "")
            known_layers = "proj_q, proj_k, proj_v, proj_out, ffn.0, ffn.2"
            yield refused(fact, f"{wrong!r} is no layer that is known; {known_layers}")
        else:
            yield given(fact, "lora.targets", tuple(targets))


def ranks_left(files: Files, known: Known) -> Iterator[Reading]:
    """`runtime.parallel.data` of a generation: the ranks that the other degrees leave."""
    ranks, tensor = files.world_size, files.raw(FLAG, "--tensor-model-parallel-size", 1)
    together = files.raw(FLAG, "--context-parallel-size", 1)
    together = (together if is_count(together) else 1) * (tensor if is_count(tensor) else 1)
    fact = files.fact(FLAG, "--nproc_per_node")
    if ranks is not None and fact is not None and ranks % together == 0 and ranks > together:
        data = ranks // together
        yield silent(fact, "runtime.parallel.data", data)
        text = f"runtime.parallel.data = {data}: the ranks that are left"
        yield said(Verdict.DERIVED, "--nproc_per_node", text)
