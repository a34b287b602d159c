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
    declared: bool = False
    """Whether the digest is of what a storage says of its objects, such as version ids, and of no bytes."""
    details: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """What helps to find it again and enters nothing, as JSON: where it lay, how much it is, which run."""


def made_of(spec_hash: str, inputs: Mapping[str, Input]) -> str:
    """The 64 hex digits that name what a result was made of: what was asked, the numerics, all content.

    Args:
        spec_hash: Of what was asked.
        inputs: By canonical path of the field that names each.
    """
    return _digest(
        {
            "v": 1,
            "kind": "made-of",
            "spec": spec_hash,
            "numerics": NUMERICS,
            "inputs": {path: one.digest for path, one in inputs.items()},
        }
    )


def trained_by_digest(run_made_of: str, step: int, weights: str) -> str:
    """The digest of weights that a run made.

    Args:
        run_made_of: What the run was made of.
        step: Optimizer steps after which they were saved.
        weights: `last`, or `average` for the moving average.
    """
    return _digest({"v": 1, "kind": "trained-by", "made_of": run_made_of, "step": step, "weights": weights})


def file_input(path: Path) -> Input:
    """A file that a field names by its path.

    Raises:
        UserError: It can't be read.
    """
    (digest,) = sha256_of_files([path])
    if digest is None:
        raise UserError(Problem("", f"{path} is no file that can be read"))
    return Input(digest=digest, kind="file", details={"path": str(path.absolute())})


def parts_input(
    parts: Iterable[Part],
    *,
    kind: str,
    name: str | None,
    revision: str | None,
    contents_dir: Path,
    declared: bool = False,
    **details: JSON,
) -> Input:
    """Content of many parts, which are kept, so that later content can be told from it part by part.

    Args:
        parts: Clips or files, in any order.
        kind, name, revision, declared, details: As of an `Input`.
        contents_dir: Where parts are kept: `RunOptions.contents_dir`.
    """
    parts = tuple(parts)
    digest = digest_of_parts(parts)
    keep_parts(contents_dir, digest, parts)
    found = {**details, "parts": len(parts)}
    return Input(digest=digest, kind=kind, name=name, revision=revision, declared=declared, details=found)


def _digest(content: JSON) -> str:
    return hashlib.sha256(encoded(content)).hexdigest()
