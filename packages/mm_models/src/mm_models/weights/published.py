"""Networks whose weights others publish too: the names of their tensors, and what tells their architecture.

A package that has such a network declares a `Published` value in the entry-point group `mm.published`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

import attrs

from mm_config.schema import Problem, UserError
from mm_config.specs import ModelSpec
from mm_models.weights.names import Dialect, best_match

Shapes = Mapping[str, tuple[int, ...]]


@attrs.frozen
class Guess:
    """An architecture read off weights."""

    spec: ModelSpec
    """The architecture."""
    heads: Literal["configuration", "family", "assumed", "unknown"]
    """What tells the number of heads: weights don't show it. Where it is unknown the spec has one."""
    unseen: frozenset[str]
    """Fields of the spec that weights don't show."""
    told: frozenset[str] = frozenset()
    """Those of them that the configuration tells and that change what the network computes."""


@attrs.frozen
class Published:
    """How the weights of one kind of network are published."""

    about: str
    """What the network is, such as `Wan's transformer`."""
    spec: type[ModelSpec]
    """The class of its specs."""
    dialects: tuple[Dialect, ...]
    """Whose names there are; the first has ours."""
    anchor: str
    """A tensor that all of them call the same; what stands before it is a wrapper's prefix."""
    unused: frozenset[str]
    """Parts of names that published files hold and no computation uses; reading leaves them out."""
    families: Callable[[], Mapping[str, ModelSpec]]
    """The known networks by name, such as `wan22.TI2V_5B`."""
    guess: Callable[[Shapes, Mapping[str, Any]], Guess | None]
    """The spec that weights of these shapes and this configuration have; None for another network's. A
    configuration that no such network has is a UserError."""
    configs: Mapping[str, Callable[[Any], dict[str, Any]]]
    """`config.json` of a spec, by the dialect that has one."""

    def config(self, model: ModelSpec) -> dict[str, Any]:
        """`config.json` of a spec in our dialect; empty where that has none."""
        of_spec = self.configs.get(self.dialects[0].name)
        return of_spec(model) if of_spec else {}

    def dialect(self, name: str) -> Dialect | None:
        """The dialect of that name."""
        return next((dialect for dialect in self.dialects if dialect.name == name), None)


@cache
def published() -> tuple[Published, ...]:
    """What installed packages declare."""
    return tuple(point.load() for point in entry_points(group="mm.published"))


def bears_our_names(names: Iterable[str]) -> bool:
    """Whether a network's tensors are all known to one table of names."""
    names = list(names)
    return any(all(one.dialects[0].ours(name) for name in names) for one in published())


def recognised(names: Iterable[str]) -> tuple[Published, Dialect, str] | None:
    """The network and the dialect that know most of the names, and their prefix; None where none does."""
    names = list(names)
    found = [(one, match) for one in published() if (match := best_match(names, one.dialects, one.anchor))]
    if not found:
        return None
    one, match = max(found, key=lambda row: row[1].count)
    return one, match.dialect, match.prefix


def families() -> dict[str, ModelSpec]:
    """The known networks by their families' names."""
    return {name: spec for one in published() for name, spec in one.families().items()}


def exact_families(shapes: Shapes) -> tuple[str, ...]:
    """The families whose networks have exactly these names and shapes."""
    return tuple(name for name, model in families().items() if model.parameter_shapes() == dict(shapes))


def nearest_family(shapes: Shapes) -> str:
    """The family that shares most names with equal shapes."""

    def likeness(model: ModelSpec) -> float:
        wanted = model.parameter_shapes()
        shared = sum(wanted.get(key) == shape for key, shape in shapes.items())
        return shared / len(wanted.keys() | shapes.keys())

    known = families()
    return max(known, key=lambda name: likeness(known[name]))


def guess(shapes: Shapes, config: Mapping[str, Any]) -> Guess | None:
    """The spec that some weights have, or None where the tensors that tell it are missing.

    Args:
        shapes: By our names.
        config: What lies beside the weights, in any dialect's terms; may be empty.

    Raises:
        UserError: The configuration is none of a network with these shapes; problems name the spec's fields.
    """
    found = (one.guess(shapes, config) for one in published())
    return next((one for one in found if one is not None), None)


def published_of(model: ModelSpec) -> Published:
    """How the weights of a spec's network are published; it is one of those that are."""
    return next(one for one in published() if isinstance(model, one.spec))


def published_model(spec: object, path: str) -> ModelSpec:
    """A spec's network, where its weights are published.

    Args:
        spec: Of a training, a generation or a network.
        path: Where it stands, for the error.

    Raises:
        UserError: It is another.
    """
    model = getattr(spec, "model", spec)
    for one in published():
        if isinstance(model, one.spec):
            return model
    known = ", ".join(one.about for one in published())
    raise UserError(
        Problem(path, f"mm inspect and mm convert know {known}; this is of {type(model).__name__}")
    )
