"""What some weights are: kind, architecture, dtypes, size, content, and how they differ from a spec."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config.running import checkpoint_digest
from mm_models import checkpoint
from mm_models.shards import raw_bytes
from mm_models.weights.differences import Differences, compare
from mm_models.weights.opening import Weights, architecture_of, contradictions, open_weights
from mm_models.weights.published import Guess, exact_families, nearest_family
from mm_models.weights.quantised import quantised_lines
from mm_models.weights.tensors import StoredTensor

_HEADS = {
    "configuration": "told by the configuration",
    "family": "those of the family",
    "size": "those of a published network with these widths",
    "shapes": "told by the shapes",
    "unknown": "unknown: nothing tells them; a spec or a config.json can",
}
Tick = Callable[[], None]


@attrs.frozen
class Inspection:
    """What was found."""

    weights: Weights
    """The tensors."""
    architecture: Guess | None
    """Read off the shapes; None where too much is missing."""
    families: tuple[str, ...]
    """Those with exactly these shapes."""
    nearest: str
    """The family that shares most of them."""
    digest: str | None
    """Of names, dtypes, shapes and values: equal for equal weights of every kind. None where values of a
    tensor are missing."""
    differences: Differences
    """From the spec asked for, else from the architecture read off, else from the nearest family."""
    spec: str | None
    """The spec that was asked for, as it was named."""

    def lines(self) -> Iterator[str]:
        """A page to read."""
        weights = self.weights
        yield f"kind          {weights.kind}: {weights.layout}, names of {weights.dialect.about}"
        yield f"architecture  {self._architecture()}"
        if self.architecture is not None:
            shown = {name: value for name, value in self._fields().items() if value is not None}
            yield f"              {', '.join(f'{name} {value}' for name, value in shown.items())}"
            why = f" ({self.architecture.heads_of})" if self.architecture.heads_of else ""
            yield f"heads         {_HEADS[self.architecture.heads]}{why}"
        yield f"tensors       {len(weights.tensors):,}"
        yield f"parameters    {_parameters(weights.tensors):,}"
        dtypes = (f"{name} ({count:,} tensors)" for name, count in _dtypes(weights.tensors).items())
        yield f"dtypes        {', '.join(dtypes)}"
        yield from (f"quantised     {line}" for line in quantised_lines(weights.tensors))
        yield f"bytes         {_bytes(weights.tensors):,}"
        yield f"digest        {self.digest or 'none: not all tensors are whole'}"
        if checkpoint.holds(weights.path):
            yield f"checkpoint    {checkpoint_digest(weights.path)}"
        if weights.left_out:
            more = ", ..." if len(weights.left_out) > 3 else ""
            yield f"left out      {len(weights.left_out):,}: {', '.join(weights.left_out[:3])}{more}"
        against = self.spec or ("its own architecture" if self.architecture else self.nearest)
        if not self.differences:
            yield f"fits          {against}"
        else:
            yield f"does not fit  {against}"
            yield from (f"  {line}" for line in self.differences.page())

    def to_json(self) -> dict[str, Any]:
        """The same as data; differences whole."""
        weights, differing = self.weights, self.differences
        return {
            "path": str(weights.path),
            "kind": weights.kind,
            "layout": weights.layout,
            "dialect": weights.dialect.name,
            "architecture": self._fields() or None,
            "heads": None if self.architecture is None else self.architecture.heads,
            "families": list(self.families),
            "nearest": self.nearest,
            "tensors": len(weights.tensors),
            "parameters": _parameters(weights.tensors),
            "dtypes": _dtypes(weights.tensors),
            "bytes": _bytes(weights.tensors),
            "quantised": list(quantised_lines(weights.tensors)),
            "digest": self.digest,
            "checkpoint": checkpoint_digest(weights.path) if checkpoint.holds(weights.path) else None,
            "left_out": list(weights.left_out),
            "spec": self.spec,
            "fits": not differing,
            "differences": attrs.asdict(differing),
        }

    def _architecture(self) -> str:
        if self.families:
            return " or ".join(self.families)
        return f"of no known family; nearest is {self.nearest}"

    def _fields(self) -> dict[str, Any]:
        """The spec's fields; the number of heads is None where nothing tells it."""
        found = self.architecture
        if found is None:
            return {}
        values = {
            name: list(value) if isinstance(value, tuple) else getattr(value, "value", value)
            for name, value in attrs.asdict(found.spec, recurse=False).items()
            if name not in self.weights.network.settings
        }
        return values | ({"num_attention_heads": None} if found.heads == "unknown" else {})


def inspect_weights(
    path: Path,
    spec: object = None,
    named: str | None = None,
    tick: Tick = lambda: None,
    *,
    part: str | None = None,
) -> Inspection:
    """Reads all of the weights at a path, one tensor at a time.

    Args:
        path: Weights of any kind that `open_weights` knows.
        spec: What they are held against: of a network, or of what has one.
        named: How that is named.
        tick: Called after each tensor.
        part: Which network is meant, as for `open_weights`.

    Raises:
        UserError: They can't be read, or the spec is of another kind of network.
    """
    weights = open_weights(path, part=part)
    shapes, network = weights.shapes, weights.network
    asked = None if spec is None else network.part_of(spec, named or "spec")
    architecture, nearest = architecture_of(weights), nearest_family(network, shapes)
    wanted = asked or (architecture and architecture.spec) or network.families()[nearest]
    return Inspection(
        weights=weights,
        architecture=architecture,
        families=exact_families(shapes),
        nearest=nearest,
        digest=digest_of(weights.tensors, tick) if _are_whole(weights.tensors) else None,
        differences=compare(
            weights.tensors, network.shapes(wanted), settings=contradictions(weights, architecture, wanted)
        ),
        spec=named,
    )


def digest_of(tensors: Mapping[str, StoredTensor], tick: Tick = lambda: None) -> str:
    """sha256 over one line per tensor in the order of names: name, dtype, shape, sha256 of its bytes."""
    lines = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        content = hashlib.sha256(raw_bytes(tensor.read())).hexdigest()
        lines.update(f"{name} {tensor.dtype} {list(tensor.shape)} {content}\n".encode())
        tick()
    return lines.hexdigest()


def _are_whole(tensors: Mapping[str, StoredTensor]) -> bool:
    return all(tensor.is_whole for tensor in tensors.values())


def _parameters(tensors: Mapping[str, StoredTensor]) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors.values())


def _bytes(tensors: Mapping[str, StoredTensor]) -> int:
    return sum(tensor.bytes for tensor in tensors.values())


def _dtypes(tensors: Mapping[str, StoredTensor]) -> dict[str, int]:
    counted = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    return dict(counted.most_common())
