"""Networks whose weights others publish too: the names of their tensors, and what tells their architecture.

A package that has such a network declares a `Published` value in the entry-point group `mm.published`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from operator import methodcaller
from types import MappingProxyType
from typing import Any, Literal

import attrs

from mm_config.schema import Problem, UserError, all_registered, loaded
from mm_config.specs import ModelSpec
from mm_models.weights.names import Dialect, Match, matches

Shapes = Mapping[str, tuple[int, ...]]


@attrs.frozen
class Guess:
    """An architecture read off weights."""

    spec: Any
    """The architecture."""
    heads: Literal["configuration", "family", "size", "shapes", "unknown"]
    """What tells the number of heads, where shapes don't. Where it is unknown the spec has one."""
    unseen: frozenset[str]
    """Fields of the spec that weights don't show."""
    told: frozenset[str] = frozenset()
    """Those of them that the configuration tells and that change what the network computes."""
    heads_of: str = ""
    """The family whose heads are taken, and why."""


@attrs.frozen
class Published:
    """How the weights of one kind of network are published."""

    about: str
    """What the network is, such as `Wan's transformer`."""
    spec: type[Any]
    """The class of its specs."""
    dialects: tuple[Dialect, ...]
    """Whose names there are; the first has ours."""
    anchor: str
    """Our name of a tensor that every such network has; what stands before it is a wrapper's prefix."""
    unused: frozenset[str]
    """Parts of names that published files hold and no computation uses; reading leaves them out."""
    families: Callable[[], Mapping[str, Any]]
    """The known networks by name, such as `wan22.TI2V_5B`."""
    guess: Callable[[Shapes, Mapping[str, Any]], Guess | None]
    """The spec that weights of these shapes and this configuration have; None for another network's. A
    configuration that no such network has is a UserError."""
    configs: Mapping[str, Callable[[Any], dict[str, Any]]]
    """`config.json` of a spec, by the dialect that has one."""
    shapes: Callable[[Any], Shapes] = methodcaller("parameter_shapes")
    """Our names and shapes of a spec."""
    part: str = "model"
    """The field of a training or a generation that holds such a spec."""
    stem: str = "diffusion_pytorch_model"
    """How the names of their files of safetensors begin."""
    kept: frozenset[str] = frozenset()
    """Entries of a configuration beside weights that specs don't have; they are written again."""
    settings: frozenset[str] = frozenset()
    """Fields of its specs that are no architecture."""

    def part_of(self, spec: object, path: str) -> Any:
        """The spec of such a network in that of a training or a generation, which may be one itself.

        Raises:
            UserError: It has another network; `path` is where it stands.
        """
        found = getattr(spec, self.part, spec)
        if not isinstance(found, self.spec):
            message = f"these are weights of {self.about}; this is of {type(found).__name__}"
            raise UserError(Problem(path, message))
        return found

    def config(self, model: Any, kind: str = "", beside: Mapping[str, Any] = MappingProxyType({})) -> Any:
        """`config.json` of a spec in a dialect, ours by default; empty where it has none.

        Args:
            model: The spec.
            kind: The dialect's name.
            beside: The configuration that lay beside the weights, of which `kept` entries stay.
        """
        of_spec = self.configs.get(kind or self.dialects[0].name)
        if of_spec is None:
            return {}
        return of_spec(model) | {name: value for name, value in beside.items() if name in self.kept}

    def dialect(self, name: str) -> Dialect | None:
        """The dialect of that name."""
        return next((dialect for dialect in self.dialects if dialect.name == name), None)


@cache
def published() -> tuple[Published, ...]:
    """What installed packages declare."""
    return tuple(loaded(entry, entry.value) for entry in all_registered("mm.published"))


def generating() -> tuple[Published, ...]:
    """Those of them that adapters change: networks of trainings and generations, no encoders."""
    return tuple(one for one in published() if one.part == "model")


def bears_our_names(names: Iterable[str]) -> bool:
    """Whether a network's tensors are all known to one table of names."""
    names = list(names)
    return any(all(one.dialects[0].ours(name) for name in names) for one in published())


@attrs.frozen
class Place:
    """Where tensors of a known network stand among others."""

    network: Published
    """Its kind."""
    match: Match
    """Whose names they bear, and under which prefix."""
    is_whole: bool
    """Whether all tensors of such a network are there."""
    asked: int
    """How many of the names that are wanted it has."""

    @property
    def rank(self) -> tuple[int, bool, bool, int]:
        """Larger for what is rather meant."""
        return self.asked, self.is_whole, not self.match.is_beside, len(self.match.names)


def places(shapes: Shapes, asked: Collection[str] = ()) -> list[Place]:
    """Where known networks, or parts of them, stand, what is rather meant first.

    Args:
        shapes: Of the tensors that lie together, by the names that they bear there.
        asked: Our names of the network that is wanted; where it is there, larger ones beside it don't count.
    """
    found: list[Place] = []
    for network in published():
        for match in matches(list(shapes), network.dialects, network.anchor):
            own = {
                ours: shapes[name]
                for name in match.names
                if (ours := match.dialect.ours(name.removeprefix(match.prefix)))
            }
            is_whole = not match.is_moments and _is_whole(network, own)
            found.append(Place(network, match, is_whole, sum(name in own for name in asked)))
    return sorted(found, key=lambda place: place.rank, reverse=True)


def _is_whole(network: Published, own: Shapes) -> bool:
    found = network.guess(own, {})
    return found is not None and network.shapes(found.spec).keys() <= own.keys()


def families() -> dict[str, ModelSpec]:
    """The known networks that generate, by their families' names."""
    return {name: spec for one in published() if one.part == "model" for name, spec in one.families().items()}


def exact_families(shapes: Shapes) -> tuple[str, ...]:
    """The families whose networks have exactly these names and shapes."""
    return tuple(
        name
        for one in published()
        if one.anchor in shapes
        for name, spec in one.families().items()
        if one.shapes(spec) == dict(shapes)
    )


def nearest_family(network: Published, shapes: Shapes) -> str:
    """The family of that network that shares most names with equal shapes."""

    def likeness(spec: Any) -> float:
        wanted = network.shapes(spec)
        shared = sum(wanted.get(key) == shape for key, shape in shapes.items())
        return shared / len(wanted.keys() | shapes.keys())

    known = network.families()
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


def published_model(spec: object, path: str) -> ModelSpec:
    """The network of a training or a generation, where its weights are published.

    Args:
        spec: Of a training, a generation or a network.
        path: Where it stands, for the error.

    Raises:
        UserError: It is another.
    """
    model: Any = getattr(spec, "model", spec)
    if any(isinstance(model, one.spec) for one in generating()):
        return model
    known = ", ".join(one.about for one in generating())
    raise UserError(
        Problem(path, f"mm inspect and mm convert know {known}; this is of {type(model).__name__}")
    )
