"""Opens weights of any kind: what they are is found in their content, and nothing is read but headers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from mm_config.schema import Problem, UserError
from mm_models.naming import first_names
from mm_models.weights.adapter_names import no_network
from mm_models.weights.layouts import CHECKPOINT, configuration, holdings, read, stored_spec
from mm_models.weights.names import Dialect, unwrapped
from mm_models.weights.published import (
    Guess,
    Place,
    Published,
    bears_our_names,
    guess,
    places,
    published,
)
from mm_models.weights.quantised import dequantised
from mm_models.weights.tensors import StoredTensor


@attrs.frozen
class Weights:
    """A network's tensors on a disk."""

    path: Path
    """The file or folder."""
    layout: str
    """How they lie there, such as `safetensors` or `pipeline stages of torch.save`."""
    network: Published
    """What they are weights of."""
    dialect: Dialect
    """Whose names they bear."""
    tensors: Mapping[str, StoredTensor]
    """By our names; those that the dialect lacks keep theirs."""
    left_out: tuple[str, ...]
    """What else is stored there: an optimizer's state, numbers, tensors that no computation uses."""
    config: Mapping[str, Any]
    """The configuration that lies beside them, or of the run that made them; empty for none."""

    @property
    def kind(self) -> str:
        """What `--to` calls it."""
        return "dcp" if self.layout == CHECKPOINT else self.dialect.name

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By our names."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}


_BESIDE = ("optimizer", "opt_param_scheduler", "rng_state")
"""What trainings store beside a network, under these first parts of names."""


def open_weights(path: Path, asked: Collection[str] = (), part: str | None = None) -> Weights:
    """Finds out what lies at a path and opens it.

    Args:
        path: A folder of diffusers, of the original Wan code, of MindSpeed-MM (`release/mp_rank_*`, or a
            distributed checkpoint) or one of our checkpoints; or one file, `.safetensors`, `.pt`, `.pth` or
            `.bin`, or an index of such files.
        asked: Our names of the network that is wanted, where several kinds may lie together.
        part: What stands before the names of the network that is meant, where a file holds several; "" is
            nothing, and None means the only one.

    Raises:
        UserError: Nothing there is weights of a known network, or of several of one kind, or they are
            damaged, or would have to be executed.
    """
    layout, (stored, others) = read(path)
    tensors, scales = dequantised(stored, path)
    names = {name: unwrapped(name) for name in tensors}
    found = places({names[name]: tensor.shape for name, tensor in tensors.items()}, asked)
    if not found:
        if why := no_network(tensors, path):
            raise UserError(Problem(str(path), why))
        known = ", ".join(one.about for one in published())
        message = f"no tensor has a name of a known network ({known}){holdings(tensors)}"
        raise UserError(Problem(str(path), message))
    meant = _only(found, path) if part is None else _named(found, part, path)
    network, dialect, prefix = meant.network, meant.match.dialect, meant.match.prefix
    others_begin = () if part is None else tuple(_prefixes(found, inside=prefix))
    named: dict[str, StoredTensor] = {}
    left_out = [*others, *scales]
    for stored_name, tensor in tensors.items():
        theirs = names[stored_name]
        parts = theirs.split(".")
        is_other = not theirs.startswith(prefix) or theirs.startswith(others_begin)
        if is_other or parts[0] in _BESIDE or not network.unused.isdisjoint(parts):
            left_out.append(stored_name)
            continue
        name = dialect.ours(theirs.removeprefix(prefix)) or theirs
        _require_new(name, named, stored_name, path)
        named[name] = tensor
    config = configuration(path)
    if layout == CHECKPOINT and not config:
        model = getattr(stored_spec(path), network.part, None)
        config = network.config(model) if isinstance(model, network.spec) else {}
    return Weights(path, layout, network, dialect, named, tuple(left_out), config)


def _only(found: Sequence[Place], path: Path) -> Place:
    """The network that is meant where nobody says which.

    Raises:
        UserError: There are two of one kind, or of equal size.
    """
    first = found[0]
    rivals = [
        place
        for place in found
        if place.is_whole
        and place.match.prefix != first.match.prefix
        and (place.network is first.network or place.rank == first.rank)
    ]
    if not first.is_whole or not rivals:
        return first
    whole = [first, *rivals]
    about = " and ".join(dict.fromkeys(place.network.about for place in whole))
    prefixes = _prefixes(whole)
    message = (
        f"holds {len(prefixes)} whole networks ({about}): {_listed(whole)}; nothing tells which is meant: "
        f"write one into a folder of its own, such as by mm convert SRC DST --part "
        f'"{prefixes[0].rstrip(".")}", and name that'
    )
    raise UserError(Problem(str(path), message))


def _named(found: Sequence[Place], part: str, path: Path) -> Place:
    prefix = part and part.removesuffix("*").rstrip(".") + "."
    if place := next((place for place in found if place.match.prefix == prefix), None):
        return place
    raise UserError(Problem(str(path), f"holds no network in the part {part!r}; it holds {_listed(found)}"))


def _prefixes(found: Iterable[Place], inside: str | None = None) -> list[str]:
    """Those of networks, each once and sorted: all, or those that go on from another."""
    prefixes = {place.match.prefix for place in found}
    return sorted(one for one in prefixes if inside is None or (one != inside and one.startswith(inside)))


def _listed(found: Sequence[Place]) -> str:
    """`high.* (95 tensors), low.* (95 tensors)`."""
    sizes: dict[str, int] = {}
    for place in found:
        sizes.setdefault(place.match.prefix, len(place.match.names))
    return first_names(
        f"{f'{prefix}*' if prefix else 'names without a prefix'} ({count} tensor{'s' if count > 1 else ''})"
        for prefix, count in sorted(sizes.items())
    )


def architecture_of(weights: Weights) -> Guess | None:
    """What shapes and configuration tell of a network; None where tensors that tell it are missing.

    Raises:
        UserError: The configuration is none of a network with these shapes, or the run that made the weights
            trained another network.
    """
    spec_of_run(weights)
    try:
        return guess(weights.shapes, weights.config)
    except UserError as error:
        what = "in the configuration of the weights"
        raise UserError(
            Problem(str(weights.path), f"{what}, {problem}") for problem in error.problems
        ) from error


def spec_of_run(weights: Weights) -> Any:
    """The network of the run whose checkpoint this is; None for anything else.

    Raises:
        UserError: The spec of the run can't be read, or its network is another.
    """
    trained = stored_spec(weights.path)
    return None if trained is None else weights.network.part_of(trained, str(weights.path))


def contradictions(weights: Weights, found: Guess | None, model: Any) -> tuple[str, ...]:
    """What a configuration tells otherwise than a spec, where tensors can't tell it.

    With another number of heads every tensor fits and every value that is computed is wrong. Where shapes
    differ they say more, and nothing is returned.
    """
    shapes = weights.network.shapes
    if found is None or shapes(found.spec) != shapes(model):
        return ()
    return tuple(
        f"{name} is {theirs} in the configuration of the weights, {ours} in the spec"
        for name in sorted(found.told)
        if (theirs := getattr(found.spec, name)) != (ours := getattr(model, name))
    )


def open_for(names: Collection[str], path: Path, model: object = None) -> Mapping[str, StoredTensor]:
    """The tensors at a path by the names of a network.

    Those of published networks are translated; others, and our checkpoints, have their own already.

    Args:
        names: The network's.
        path: As for `open_weights`.
        model: The network's spec, which a configuration beside the weights must not contradict.

    Raises:
        UserError: Nothing there is weights, or they are damaged, or would have to be executed; or they are
            of a network with other settings.
    """
    if bears_our_names(names):
        weights = open_weights(path, names)
        if isinstance(model, weights.network.spec) and (
            differing := contradictions(weights, architecture_of(weights), model)
        ):
            raise UserError(Problem(str(path), message) for message in differing)
        return weights.tensors
    _, (stored, _) = read(path)
    tensors, _ = dequantised(stored, path)
    if not tensors:
        raise UserError(Problem(str(path), f"holds no weights{holdings(tensors)}"))
    own: dict[str, StoredTensor] = {}
    for stored_name, tensor in tensors.items():
        name = stored_name if stored_name in names else unwrapped(stored_name)
        if name.split(".")[0] in _BESIDE:
            continue
        _require_new(name, own, stored_name, path)
        own[name] = tensor
    return own


def _require_new(name: str, named: Collection[str], stored_name: str, path: Path) -> None:
    if name in named:
        twice = f"holds {name} under two names; one of them is {stored_name}"
        raise UserError(Problem(str(path), twice))
