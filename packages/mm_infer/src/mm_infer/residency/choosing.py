"""Which residency a generation gets: what its spec says, or the fastest that fits by the plan."""

from __future__ import annotations

import torch

from mm_config import replace
from mm_config.console import say
from mm_config.planning import chosen_residency, fastest_residency, gigabytes, is_automatic, lacking
from mm_config.schema import Problem, UserError
from mm_config.specs import InferSpec, ResidencySpec


def settled(spec: InferSpec, device: torch.device, free: int | None) -> ResidencySpec:
    """The spec's residency, with a choice in place of `auto`, which is said with its reason.

    Args:
        spec: The generation, which follows the rules.
        device: Where it is going to be carried out.
        free: Bytes that each rank can have there; None where nobody tells.

    Raises:
        UserError: It does not fit; what would fit is named.
    """
    chosen = fastest_residency(spec, free)
    planned = replace(spec, "runtime.residency", chosen)
    if free is not None and (lacks := lacking(planned, free)) is not None:
        raise UserError(Problem("spec", f"{lacks}; {gigabytes(free)} are free on {device}"))
    if is_automatic(spec.runtime.residency):
        there = "of an unknown amount" if free is None else f"of {gigabytes(free)} that are free on {device}"
        say(chosen_residency(planned, there))
    return chosen
