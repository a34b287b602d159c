"""The inputs of a run by the field that names each, and the identity of what was made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config.content.numerics import NUMERICS
from mm_config.content.parts import Part, digest_of_parts, keep_parts
from mm_config.content.remembered import sha256_of_files
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.identity import JSON, encoded


@attrs.frozen(kw_only=True)
class Input:
    """What a field named, when a run looked: data, weights, a file."""

    digest: str
    """64 hex digits that name its content."""
    kind: str
    """What names it: the wire tag of its spec, or `file`."""
    name: str | None = None
    """Its logical name, which means one content; None where it has none."""
    revision: str | None = None
    """The revision of the name."""
    pinned: bool = False
    """Whether the spec says which digest it must be."""
    declared: bool = False
    """Whether a storage was believed that its objects are the versions whose bytes were read before."""
    details: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """What helps to find it again, as JSON: where it lay, how much it is, which run; and `order_key`."""

    @property
    def order_key(self) -> str | None:
        """What the order of samples follows from, which is in no `made_of`; None for what has no order."""
        return self.details.get("order_key")

    @property
    def as_read(self) -> tuple[str, str | None]:
        """What results depend on: the content, and the order in which it is read."""
        return self.digest, self.order_key


def orders_of(inputs: Mapping[str, Input]) -> dict[str, str]:
    """The keys of the orders of samples, by path of the input that has one."""
    return {path: one.order_key for path, one in inputs.items() if one.order_key is not None}


def made_of(spec_hash: str, inputs: Mapping[str, Input], numerics: int = NUMERICS) -> str:
    """The 64 hex digits that name what a result was made of: what was asked, the numerics, all content.

    Args:
        spec_hash: Of what was asked.
        inputs: By canonical path of the field that names each.
        numerics: Of the code that made it.
    """
    return _digest(
        {
            "v": 1,
            "kind": "made-of",
            "spec": spec_hash,
            "numerics": numerics,
            "inputs": {path: one.digest for path, one in inputs.items()},
        }
    )


def trained_by_digest(run_made_of: str, orders: Mapping[str, str], step: int, weights: str) -> str:
    """The digest of weights that a run made.

    Args:
        run_made_of: What the run was made of.
        orders: In which orders it read that, as `orders_of` gives them.
        step: Optimizer steps after which they were saved.
        weights: `last`, or `average` for the moving average.
    """
    return _digest(
        {
            "v": 1,
            "kind": "trained-by",
            "made_of": run_made_of,
            "orders": dict(orders),
            "step": step,
            "weights": weights,
        }
    )


def in_turn(earlier: Input, now: Input) -> Input:
    """The content of a run that goes on: what it was, or both where another is read from now on.

    The order of samples stays the one that the run began with.
    """
    before = last_in_turn(earlier)
    if before.digest == now.digest:
        return earlier
    digests: JSON = [*earlier.details.get("in_turn", [earlier.digest]), now.digest]
    both = _digest({"v": 1, "kind": "in-turn", "digests": digests})
    order = {} if earlier.order_key is None else {"order_key": earlier.order_key}
    return attrs.evolve(now, digest=both, details={**now.details, **order, "in_turn": digests})


def last_in_turn(one: Input) -> Input:
    """The content that a run read last."""
    return attrs.evolve(one, digest=(one.details.get("in_turn") or [one.digest])[-1])


def file_input(path: Path) -> Input:
    """A file that a field names by its path.

    Raises:
        UserError: It can't be read.
    """
    (digest,) = sha256_of_files([path])
    if digest is None:
        raise UserError(Problem("", f"{path} is no file that can be read"))
    return Input(digest=digest, kind="file", details={"path": str(path.absolute())})


def parts_input(parts: Iterable[Part], contents_dir: Path, **known: Any) -> Input:
    """Content of many parts, which are kept, so that later content can be told from it part by part.

    Args:
        parts: Clips or files, in any order.
        contents_dir: Where parts are kept: `RunOptions.contents_dir`.
        known: The other attributes of the input.
    """
    parts = tuple(parts)
    digest = digest_of_parts(parts)
    keep_parts(contents_dir, digest, parts)
    return Input(digest=digest, **known)


def pinned(one: Input, digest: str | None, path: str) -> Input:
    """An input that must have a digest, where the spec says which.

    Args:
        one: What was found.
        digest: What the spec's field says; None for anything.
        path: Canonical path of the spec with the field.

    Raises:
        UserError: It is another.
    """
    if digest is None:
        return one
    if digest != one.digest:
        message = f"is {digest}, but the content found is {one.digest}"
        raise UserError(Problem(f"{path}.digest", f"{message} ({one.details.get('path', one.name)})"))
    return attrs.evolve(one, pinned=True)


def _digest(content: JSON) -> str:
    return hashlib.sha256(encoded(content)).hexdigest()
