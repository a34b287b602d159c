"""Names of one network's tensors in the dialects of several codebases, as tables of data.

Every table's first column is our own names, which are diffusers'. A name is a module's path and `weight` or
`bias`, or a parameter's own path; `*` stands for a block's number. Shapes and values are the same in all
dialects.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache

import attrs

_NUMBER = re.compile(r"(?:(?<=\bblocks\.)|(?<=\bblock\.))\d+(?=\.)")
_MOMENTS = re.compile(r"optim(?:izer)?s?(?:[_-].*)?|(?:max_)?exp_avg(?:_sq)?|momentum_buffer")
_WRAPPERS = frozenset(("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "module"))


@attrs.frozen
class Dialect:
    """One codebase's names."""

    name: str
    """Such as `wan`; what `--to` takes."""
    about: str
    """Whose names these are."""
    modules: Mapping[str, str]
    """Their paths of modules and parameters by ours."""
    also: Mapping[str, str] = attrs.field(factory=dict)
    """Further paths of theirs that are read and never written, by ours."""

    def theirs(self, name: str) -> str:
        """Our name in this dialect.

        Raises:
            KeyError: The table lacks it.
        """
        module, number, leaf = _parted(name)
        return self.modules[module].replace("*", number) + leaf

    def ours(self, name: str) -> str | None:
        """This dialect's name as ours; None where the table lacks it."""
        module, number, leaf = _parted(name)
        found = self._inverse.get(module)
        return None if found is None else found.replace("*", number) + leaf

    @cached_property
    def flattened(self) -> Mapping[str, str]:
        """Their paths by the same with `_` for every dot, as flat formats write them."""
        return {module.replace(".", "_"): module for module in self.modules.values()}

    @cached_property
    def _inverse(self) -> Mapping[str, str]:
        return {theirs: ours for table in (self.also, self.modules) for ours, theirs in table.items()}


@lru_cache(2**14)  # Each of some tables asks for every name.
def _parted(name: str) -> tuple[str, str, str]:
    """A name's module with `*`, its block's number, and its leaf with the dot."""
    stem, dot, leaf = name.rpartition(".")
    module, leaf = (stem, dot + leaf) if leaf in ("weight", "bias") else (name, "")
    found = _NUMBER.search(module)
    return _NUMBER.sub("*", module, count=1), found[0] if found else "", leaf


@attrs.frozen
class Match:
    """The dialect that knows most of some names."""

    dialect: Dialect
    """Whose names they are."""
    prefix: str
    """What a wrapper put before all names, such as `model.` or `predictor.`."""
    names: Sequence[str]
    """Those that it knows, with the prefix."""

    @property
    def is_beside(self) -> bool:
        """Whether an optimizer's state or an average stands there, which bears a network's names too."""
        return self.is_moments or "ema" in self.prefix

    @property
    def is_moments(self) -> bool:
        """Whether an optimizer's state stands there, which has a network's shapes and is none."""
        return any(_MOMENTS.fullmatch(part) for part in self.prefix.split("."))


def matches(names: Sequence[str], dialects: Sequence[Dialect], anchor: str) -> list[Match]:
    """Every prefix with a dialect that knows names under it, the best first; those beside a network last.

    Args:
        names: Of the tensors that lie together.
        dialects: Those of one network.
        anchor: One of our names; what stands before it in the names, in any dialect, is a prefix.
    """
    anchors = {dialect.theirs(anchor) for dialect in dialects}
    prefixes = {""} | {
        name.removesuffix(end) for name in names for end in anchors if name.endswith("." + end)
    }
    ordered = sorted(names)
    found = [
        Match(dialect, prefix, known)
        for prefix in prefixes
        for dialect in dialects
        if (known := [name for name in _under(prefix, ordered) if dialect.ours(name[len(prefix) :])])
    ]
    return sorted(found, key=lambda one: (one.is_beside, -len(one.names), len(one.prefix), one.prefix))


def _under(prefix: str, ordered: Sequence[str]) -> Sequence[str]:
    """The sorted names with a prefix, found by halving: a file may hold as many prefixes as names."""
    start = bisect_left(ordered, prefix)
    return ordered[start : bisect_right(ordered, prefix, lo=start, key=lambda name: name[: len(prefix)])]


def unwrapped(name: str) -> str:
    """A name without the parts that `torch.compile`, recomputation, FSDP and DDP put into names."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)
