"""What YAML files and scripts say of recomputation and number formats."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.importing.facts import Fact
from mm_config.importing.mindspeed.files import Files, Known, is_count
from mm_config.importing.mindspeed.keys import FLAG, FSDP2, LAYERZERO, MODEL, NATIVE
from mm_config.importing.names import patterns_of
from mm_config.importing.readings import Reading, given, refused, said, silent, tried
from mm_config.importing.values import switch
from mm_config.importing.verdict import Verdict
from mm_config.specs.dtype import Dtype
from mm_config.specs.parallel import Recompute

_ALL = "recompute.modules = ('blocks.*',): all blocks, one by one"


def recomputation(files: Files, known: Known) -> Iterator[Reading]:
    """`recompute`: of the FSDP2 YAML, of Megatron's flags, or of a native YAML."""
    yaml = files.fact(FSDP2, "recompute_modules") if files.holds("fsdp2") else None
    granularity = files.fact(FLAG, "--recompute-granularity")
    if yaml is not None:
        yield from _by_modules(yaml)
        if granularity is not None and yaml.value:
            text = (
                f"{yaml.place} recomputes by recompute_modules, and Megatron's recomputation has to be off "
                "with it"
            )
            yield said(Verdict.CONFLICT, granularity, text)
    elif granularity is not None:
        yield from _by_megatron(files, granularity)
    elif files.has(FSDP2) or (files.has(FLAG) and files.fact(FLAG, "--fsdp2-config-path") is None):
        yield given("recompute_modules", "recompute.mode", Recompute.NONE)
    yield from _native(files)


def _by_modules(fact: Fact) -> Iterator[Reading]:
    found, wrong = tried(fact, patterns_of)
    yield from wrong
    if wrong:
        return
    if found:
        yield silent(fact, "recompute.mode", Recompute.FULL)
        yield given(fact, "recompute.modules", found)
    else:
        yield given(fact, "recompute.mode", Recompute.NONE)


def _by_megatron(files: Files, granularity: Fact) -> Iterator[Reading]:
    if granularity.value != "full":
        yield refused(granularity, "MindSpeed-MM rejects all but full for Wan")
        return
    yield given(granularity, "recompute.mode", Recompute.FULL)
    method, layers = files.fact(FLAG, "--recompute-method"), files.fact(FLAG, "--recompute-num-layers")
    if method is not None and method.value not in ("block", "uniform"):
        yield refused(method, "expected block or uniform")
        return
    partly = files.raw(FLAG, "--recompute-num-layers-skip-core-attention", 0)
    kept = files.fact(FLAG, "--recompute-skip-core-attention") is not None and is_count(partly)
    count, blocks = files.raw(FLAG, "--recompute-num-layers"), files.get(MODEL, "predictor.num_layers")
    for flag in ("--recompute-skip-core-attention", "--recompute-num-layers-skip-core-attention"):
        if (fact := files.fact(FLAG, flag)) is not None:
            text = (
                "those blocks also keep attention's output there; here one mode holds for all, and more is "
                "computed again"
            )
            yield said(Verdict.DERIVED, fact, text if kept else "recompute.mode = full")
    if method is not None and method.value == "uniform":
        count = 0
    # The blocks that keep attention's output come after those that are computed again whole.
    count = count + (partly if kept else 0) if is_count(count) else 0
    if count == 0 or (blocks and count >= blocks):
        yield silent(layers or method or granularity, "recompute.modules", ("blocks.*",))
        for fact in (layers, method):
            if fact is not None:
                yield said(Verdict.DERIVED, fact, _ALL)
        return
    first = ("blocks.0" if count == 1 else f"blocks.{{0-{count - 1}}}",)
    yield given(layers or granularity, "recompute.modules", first)
    if method is not None:
        yield said(Verdict.MAPPED, method, "recompute.modules: the first blocks")


def _native(files: Files) -> Iterator[Reading]:
    """The keys of 26.1; those of 26.0 drive nothing any more, and their rows say so."""
    fact = files.fact(NATIVE, "features.recompute")
    if fact is None:
        if files.has(NATIVE):
            yield given("features.recompute", "recompute.mode", Recompute.NONE)
        return
    recompute, wrong = tried(fact, switch)
    yield from wrong
    if wrong:
        return
    yield given(fact, "recompute.mode", Recompute.FULL if recompute else Recompute.NONE)
    plan = files.fact(NATIVE, "features.recompute_plan.apply_modules")
    if recompute and plan is not None:
        found, wrong = tried(plan, patterns_of)
        yield from wrong or (given(plan, "recompute.modules", found),)


def precision(files: Files, known: Known) -> Iterator[Reading]:
    """`precision`: the YAML's formats, else those of the flags."""
    flags = [
        fact for flag in ("--bf16", "--downcast-to-bf16") if (fact := files.fact(FLAG, flag)) is not None
    ]
    sharded = next(
        (
            kind
            for kind, on in ((FSDP2, "fsdp2"), (LAYERZERO, "layerzero"))
            if files.has(kind) and files.holds(on)
        ),
        None,
    )
    compute = None if sharded is None else files.get(sharded, "param_dtype")
    compute = compute or files.get(NATIVE, "parallel.fsdp_plan.param_dtype")
    if compute is None and flags:
        compute = Dtype.BFLOAT16
        yield silent(flags[0], "precision.compute", compute)
    elif compute is None and (
        sharded or (files.has(FLAG) and files.fact(FLAG, "--fsdp2-config-path") is None)
    ):
        compute = Dtype.FLOAT32
        yield given("param_dtype", "precision.compute", compute)
    if sharded and files.get(sharded, "reduce_dtype") is None and compute is not None:
        reduce = files.fact(sharded, "reduce_dtype") or "reduce_dtype"
        yield given(reduce, "precision.reduce", compute)
    for fact in flags:
        if len(flags) == 2:
            text = "--bf16 and --downcast-to-bf16 are both given; one of them is enough"
            yield said(Verdict.CONFLICT, fact, text)
        elif compute is Dtype.BFLOAT16:
            text = "precision.compute = bfloat16; master weights are always float32"
            yield said(Verdict.MAPPED, fact, text)
        elif compute is not None:
            text = f"the YAML's param_dtype is fp32: precision.compute = {compute.value}"
            yield said(Verdict.CONFLICT, fact, text)
