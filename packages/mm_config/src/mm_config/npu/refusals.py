"""Environment variables under which nothing may run on an Ascend NPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mm_config.npu.variables import ALLOCATOR, OTHER_ALLOCATOR
from mm_config.schema.errors import Problem

_SATURATING = "turns inf into 65504 and NaN into 0, so that a broken step looks like a sound one; unset it"
_REFUSED = {
    "INF_NAN_MODE_ENABLE": ("0", _SATURATING),
    "INF_NAN_MODE_FORCE_DISABLE": ("1", _SATURATING),
    "TORCH_TRANSFER_TO_NPU": ("1", "replaces torch.cuda's functions in every library; unset it"),
}
"""Switches of 0 and 1, with the value that is refused and why."""


def refused(environment: Mapping[str, str]) -> Iterator[Problem]:
    """What of an environment hides errors, changes other libraries, or is refused by torch_npu itself.

    Paths are the variables' names.
    """
    for name, (value, reason) in _REFUSED.items():
        given = environment.get(name)
        if given == value:
            yield Problem(name, f"is {value}, which {reason}")
        elif given not in (None, "0", "1"):
            yield Problem(name, f"must be 0 or 1, got {given!r}")
    if ALLOCATOR in environment and OTHER_ALLOCATOR in environment:
        yield Problem(
            ALLOCATOR, f"is set beside {OTHER_ALLOCATOR}, which torch_npu refuses; unset one of them"
        )
