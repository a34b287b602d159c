"""What YAML files and scripts say of ranks, sharding, recomputation and number formats."""

from __future__ import annotations

from typing import Any

from mm_config.importing.facts import Fact
from mm_config.importing.mindspeed.book import Book
from mm_config.importing.mindspeed.rows import FLAG
from mm_config.importing.names import ENCODERS, lora_target, module_pattern
from mm_config.importing.nodes import as_in_file
from mm_config.importing.values import switch
from mm_config.importing.verdict import Verdict
from mm_config.schema.types import is_tuple
from mm_config.specs.dtype import Dtype
from mm_config.specs.parallel import Recompute

NATIVE = "native.yaml"
_ALGORITHMS = ("ulysses_cp_algo", "megatron_cp_algo", "hybrid_cp_algo")


def read_context_parallel(book: Book, prefix: str) -> None:
    """Puts the degrees of context parallelism into the spec.

    Args:
        book: The facts.
        prefix: `parallel` or `runtime.parallel`.
    """
    size = book.fact(FLAG, "--context-parallel-size")
    algorithm = book.fact(FLAG, "--context-parallel-algo")
    degree = book.raw(FLAG, "--context-parallel-size", 1)
    if size is None:
        return
    if not isinstance(degree, int) or not 1 <= degree < 2**31:
        book.refuse(size, "expected a number of ranks")
        return
    if degree == 1:
        book.mark(size, Verdict.MAPPED, f"{prefix}.ulysses = 1, {prefix}.ring = 1")
        return
    word = "megatron_cp_algo" if algorithm is None else algorithm.value
    if word not in _ALGORITHMS:
        if algorithm is not None:
            book.refuse(algorithm, f"can't be said here: only {', '.join(_ALGORITHMS)}")
        return
    ulysses, ring = (degree, 1) if word == "ulysses_cp_algo" else (1, degree)
    if word == "hybrid_cp_algo":
        inner = book.raw(FLAG, "--ulysses-degree-in-cp")
        if not isinstance(inner, int) or inner < 1 or degree % inner:
            book.refuse(
                book.fact(FLAG, "--ulysses-degree-in-cp") or size,
                f"hybrid_cp_algo needs --ulysses-degree-in-cp, a divisor of {degree}",
            )
            return
        ulysses, ring = inner, degree // inner
    for name, value in (("ulysses", ulysses), ("ring", ring)):
        book.set(f"{prefix}.{name}", value, size)
    for flag in ("--context-parallel-size", "--context-parallel-algo", "--ulysses-degree-in-cp"):
        text = f"{prefix}.ulysses = {ulysses}, {prefix}.ring = {ring}"
        book.mark(book.fact(FLAG, flag), Verdict.MAPPED, text)
    if algorithm is None:
        book.say(Verdict.DEFAULT, "--context-parallel-algo", f"{prefix}.ring = {degree}: megatron_cp_algo")


def read_sharding(book: Book) -> None:
    """Puts units, exceptions and recomputed modules into the spec."""
    if book.conditions["fsdp2"]:
        _patterns(book, book.fact("fsdp2.yaml", "sub_modules_to_wrap"), "fsdp.wrap")
        if book.has("fsdp2.yaml") and book.fact("fsdp2.yaml", "sub_modules_to_wrap") is None:
            book.set("fsdp.wrap", ())
            book.say(Verdict.DEFAULT, "sub_modules_to_wrap", "fsdp.wrap = (): the network is one unit")
        _ignored(book, book.fact("fsdp2.yaml", "ignored_modules"))
    if book.conditions["layerzero"]:
        _ignored(book, book.fact("layerzero.yaml", "ignored_modules"))
    _patterns(book, book.fact(NATIVE, "parallel.fsdp_plan.apply_modules"), "fsdp.wrap")
    _ignored(book, book.fact(NATIVE, "parallel.fsdp_plan.ignored_modules"))
    _recompute(book)


def _patterns(book: Book, fact: Fact | None, target: str) -> None:
    if fact is None:
        return
    found = _read_patterns(book, fact)
    if found is not None:
        book.map(fact, target, found)


def _read_patterns(book: Book, fact: Fact) -> tuple[str, ...] | None:
    if fact.value is None:
        return ()
    if not is_tuple(fact.value):
        book.refuse(fact, "expected a list of modules")
        return None
    found = [(name, module_pattern(name) if isinstance(name, str) else None) for name in fact.value]
    for name, pattern in found:
        if pattern is None:
            book.refuse(
                fact,
                f"{as_in_file(name)} is no module that can be named here; such as predictor.blocks.{{*}}, "
                "predictor.blocks.{0-3} or predictor.head",
            )
            return None
    return tuple(pattern for _, pattern in found if pattern is not None)


def _ignored(book: Book, fact: Fact | None) -> None:
    if fact is None:
        return
    value: Any = fact.value
    if value is None or (is_tuple(value) and set(map(str, value)) <= set(ENCODERS)):
        book.mark(fact, Verdict.DERIVED, "encoders are whole on each rank (runtime.shard_encoders = False)")
    elif is_tuple(value):
        inside = [name for name in value if name not in ENCODERS]
        found = [module_pattern(name) if isinstance(name, str) else None for name in inside]
        if None in found:
            book.refuse(
                fact, "holds a module that can't be named here; such as ae, text_encoder or predictor.head"
            )
        else:
            book.map(fact, "fsdp.ignore", tuple(pattern for pattern in found if pattern is not None))
    else:
        book.refuse(fact, "expected a list of modules")


def _recompute(book: Book) -> None:
    yaml = book.fact("fsdp2.yaml", "recompute_modules") if book.conditions["fsdp2"] else None
    granularity = book.fact(FLAG, "--recompute-granularity")
    if yaml is not None:
        found = _read_patterns(book, yaml)
        if found is not None:
            book.set("recompute.mode", Recompute.FULL if found else Recompute.NONE)
            if found:
                book.map(yaml, "recompute.modules", found)
            else:
                book.mark(yaml, Verdict.MAPPED, "recompute.mode = none")
        if granularity is not None and yaml.value:
            book.mark(
                granularity,
                Verdict.CONFLICT,
                f"{yaml.place} recomputes by recompute_modules, and Megatron's recomputation has to be off "
                "with it",
            )
    elif granularity is not None:
        _megatron_recompute(book, granularity)
    elif book.has("fsdp2.yaml") or (book.has(FLAG) and book.fact(FLAG, "--fsdp2-config-path") is None):
        book.set("recompute.mode", Recompute.NONE)
        book.say(Verdict.DEFAULT, "recompute_modules", "recompute.mode = none")
    _native_recompute(book)


def _megatron_recompute(book: Book, granularity: Fact) -> None:
    if granularity.value != "full":
        book.refuse(granularity, "MindSpeed-MM rejects all but full for Wan")
        return
    skip = book.fact(FLAG, "--recompute-skip-core-attention")
    first = book.fact(FLAG, "--recompute-num-layers-skip-core-attention")
    count = book.raw(FLAG, "--recompute-num-layers")
    some = book.raw(FLAG, "--recompute-num-layers-skip-core-attention", 0)
    selective = (
        skip is not None and isinstance(some, int) and some >= (count if isinstance(count, int) else 1)
    )
    mode = Recompute.SELECTIVE if selective else Recompute.FULL
    book.set("recompute.mode", mode, granularity)
    book.mark(granularity, Verdict.MAPPED, f"recompute.mode = {mode.value}")
    partial = (
        "those blocks also keep attention's output there; here one mode holds for all, and more is computed "
        "again"
    )
    if selective:
        book.mark(skip, Verdict.MAPPED, "recompute.mode = selective")
        book.mark(first, Verdict.DERIVED, "recompute.mode = selective, for all recomputed blocks")
    else:
        book.mark(skip, Verdict.DERIVED, partial)
        book.mark(first, Verdict.DERIVED, partial if some else "recompute.mode = full")
    method, layers = book.fact(FLAG, "--recompute-method"), book.fact(FLAG, "--recompute-num-layers")
    if method is not None and method.value not in ("block", "uniform"):
        book.refuse(method, "expected block or uniform")
        return
    blocks = book.get("model.json", "predictor.num_layers")
    uniform = method is not None and method.value == "uniform"
    if uniform or count is None or not isinstance(count, int) or count < 1 or (blocks and count >= blocks):
        book.set("recompute.modules", ("blocks.*",), layers)
        book.mark(layers, Verdict.DERIVED, "recompute.modules = ('blocks.*',): all blocks, one by one")
        book.mark(method, Verdict.DERIVED, "recompute.modules = ('blocks.*',): all blocks, one by one")
    else:
        book.map(layers, "recompute.modules", ("blocks.0" if count == 1 else f"blocks.{{0-{count - 1}}}",))
        book.mark(method, Verdict.MAPPED, "recompute.modules: the first blocks")


def _native_recompute(book: Book) -> None:
    fact = book.fact(NATIVE, "features.recompute")
    recompute = book.read(fact, switch)
    if recompute is not None:
        book.map(fact, "recompute.mode", Recompute.FULL if recompute else Recompute.NONE)
        if recompute:
            _patterns(book, book.fact(NATIVE, "features.recompute_plan.apply_modules"), "recompute.modules")
    elif fact is None and book.has(NATIVE):
        book.set("recompute.mode", Recompute.NONE)
        book.say(Verdict.DEFAULT, "features.recompute", "recompute.mode = none")


def read_precision(book: Book) -> None:
    """Puts number formats into the spec: the YAML's, else those of the flags."""
    flags = [fact for flag in ("--bf16", "--downcast-to-bf16") if (fact := book.fact(FLAG, flag)) is not None]
    sharded = (book.has("fsdp2.yaml") and book.conditions["fsdp2"]) or (
        book.has("layerzero.yaml") and book.conditions["layerzero"]
    )
    compute = book.changes.get("precision.compute")
    if compute is None and (sharded or (book.has(FLAG) and book.fact(FLAG, "--fsdp2-config-path") is None)):
        compute = Dtype.BFLOAT16 if flags else Dtype.FLOAT32
        book.set("precision.compute", compute, flags[0] if flags else None)
        if not flags:
            book.say(Verdict.DEFAULT, "param_dtype", f"precision.compute = {compute.value}")
    elif compute is None and flags:
        compute = Dtype.BFLOAT16
        book.set("precision.compute", compute, flags[0])
    if sharded and book.changes.get("precision.reduce") is None and compute is not None:
        book.set("precision.reduce", compute)
        book.say(Verdict.DEFAULT, "reduce_dtype", f"precision.reduce = {compute.value}")
    for fact in flags:
        if compute is Dtype.BFLOAT16 or compute is None:
            book.mark(fact, Verdict.MAPPED, "precision.compute = bfloat16; master weights are always float32")
        else:
            book.mark(
                fact, Verdict.CONFLICT, f"the YAML's param_dtype is fp32: precision.compute = {compute.value}"
            )
    if len(flags) == 2:
        for fact in flags:
            book.mark(
                fact, Verdict.CONFLICT, "--bf16 and --downcast-to-bf16 are both given; one of them is enough"
            )


def read_adapters(book: Book) -> None:
    """Puts the layers that adapters are put on into the spec."""
    for fact in (book.fact(FLAG, "--lora-target-modules"), book.fact(NATIVE, "training.lora.target_modules")):
        if fact is None or not book.conditions["lora"]:
            continue
        words = fact.value if is_tuple(fact.value) else (fact.value,)
        names = [name for word in words for name in str(word).split(",") if name]
        targets = [lora_target(name) for name in names]
        if None in targets or not names:
            wrong = next((name for name, target in zip(names, targets, strict=True) if target is None), "")
            book.refuse(
                fact, f"{wrong!r} is no layer that is known; proj_q, proj_k, proj_v, proj_out, ffn.0, ffn.2"
            )
        else:
            book.map(fact, "lora.targets", tuple(target for target in targets if target is not None))
