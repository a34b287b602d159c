"""The modules of a network that a spec names by patterns."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from mm_config.rules import matches
from mm_config.schema import Problem, UserError


def matching_modules(network: nn.Module, patterns: Iterable[str], path: str) -> tuple[str, ...]:
    """The names of modules that any pattern matches, in the network's order.

    Args:
        network: Whose modules.
        patterns: Globs; a star stays within one part of a name.
        path: The field that they stand in, such as `spec.fsdp.wrap`.

    Raises:
        UserError: A match is a list of modules. It is never called itself, so nothing can be done around it.
    """
    names = tuple(
        name for name, _ in network.named_modules() if any(matches(name, pattern) for pattern in patterns)
    )
    lists = [
        name for name in names if isinstance(network.get_submodule(name), (nn.ModuleList, nn.ModuleDict))
    ]
    if lists:
        raise UserError(
            Problem(path, f"{name!r} is a list of modules; for its items write '{name}.*'") for name in lists
        )
    return names
