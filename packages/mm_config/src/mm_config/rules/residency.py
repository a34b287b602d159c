"""Rules on where experts and encoders wait, and which blocks do."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mm_config.rules.wording import idle_problems
from mm_config.schema.errors import Problem, prefixed
from mm_config.specs.encoders import Umt5TextEncoderSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.serving import InferRuntimeSpec, Residency, ResidencySpec


def waiting_blocks(share: float, number: int) -> tuple[int, ...]:
    """Which of some blocks wait outside: the share of them, rounded up, evenly over the depth."""
    waiting = math.ceil(share * number - 1e-9)
    return tuple(one for one in range(number) if (one + 1) * waiting // number > one * waiting // number)


def residency_problems(runtime: InferRuntimeSpec) -> Iterator[Problem]:
    """Only layerwise residency brings single blocks, and only what waits can be pinned."""
    residency = runtime.residency
    kinds = {residency.experts, residency.encoders}
    if kinds.isdisjoint((Residency.LAYERWISE, Residency.AUTO)):
        idle = idle_problems(residency, ["share", "prefetch"], "layerwise residency")
        yield from prefixed(idle, "residency")
    if kinds == {Residency.RESIDENT}:
        yield from prefixed(idle_problems(residency, ["pin_memory"], "what waits"), "residency")


def block_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    """Blocks are there to wait, and more wait than are on their way; paths start inside the spec.

    Args:
        spec: The spec.
        path: Where it stands, for messages that name a second field.
    """
    residency = spec.runtime.residency
    if residency.experts is Residency.LAYERWISE:
        yield from _share_problems(residency, spec.model.num_layers, "experts", "network")
        if spec.runtime.parallel.fsdp:
            yield Problem(
                "runtime.residency.experts",
                f"is layerwise, but {path}.runtime.parallel.fsdp has a rank hold whole blocks only while "
                "they compute already; turn one of them off",
            )
    if residency.encoders is Residency.LAYERWISE:
        if isinstance(spec.text_encoder, Umt5TextEncoderSpec):
            yield from _share_problems(residency, spec.text_encoder.num_layers, "encoders", "text encoder")
        else:
            message = "is layerwise, but the text encoder has no blocks that could come one by one"
            yield Problem("runtime.residency.encoders", f"{message}; swap moves it whole")


def fits_blocks(residency: ResidencySpec, number: int) -> bool:
    """Whether some blocks can wait as the spec says: more wait than are brought ahead."""
    return residency.prefetch < len(waiting_blocks(residency.share, number))


def _share_problems(residency: ResidencySpec, number: int, field: str, what: str) -> Iterator[Problem]:
    waiting = len(waiting_blocks(residency.share, number))
    if not waiting:
        message = f"is 0: no block waits, as with {field} = resident; say that, or raise it"
        yield Problem("runtime.residency.share", message)
    elif not fits_blocks(residency, number):
        blocks = f"{waiting} of the {what}'s {number} block{'s' if number > 1 else ''}"
        yield Problem(
            "runtime.residency.prefetch",
            f"is {residency.prefetch}, but {blocks} wait{'s' if waiting == 1 else ''}: "
            f"at most {waiting - 1} can be brought ahead of the one at work",
        )
