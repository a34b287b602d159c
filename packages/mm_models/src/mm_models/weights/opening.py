"""Opens weights of any kind: what they are is found in their content, and nothing is read but headers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config.schema import Problem, UserError
from mm_models.weights.adapter_names import no_network
from mm_models.weights.layouts import CHECKPOINT, configuration, holdings, read, stored_spec
from mm_models.weights.names import Dialect, unwrapped
from mm_models.weights.published import (
    Guess,
    Published,
    Shapes,
    bears_our_names,
    guess,
    published,
    recognised,
    whole_networks,
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


def open_weights(path: Path, asked: Collection[str] = ()) -> Weights:
    """Finds out what lies at a path and opens it.

    Args:
        path: A folder of diffusers, of the original Wan code, of MindSpeed-MM (`release/mp_rank_*`, or a
            distributed checkpoint) or one of our checkpoints; or one file, `.safetensors`, `.pt`, `.pth` or
            `.bin`, or an index of such files.
        asked: Our names of the network that is wanted, where several kinds may lie together.

    Raises:
        UserError: Nothing there is weights of a known network, or of several of one kind, or they are
            damaged, or would have to be executed.
    """
    layout, (stored, others) = read(path)
    tensors, scales = dequantised(stored, path)
    names = {name: unwrapped(name) for name in tensors}
    found = recognised(names.values(), asked)
    if found is None:
        if why := no_network(tensors, path):
            raise UserError(Problem(str(path), why))
        known = ", ".join(one.about for one in published())
        message = f"no tensor has a name of a known network ({known}){holdings(tensors)}"
        raise UserError(Problem(str(path), message))
    network, dialect, prefix = found
    _require_one(network, {names[name]: tensor.shape for name, tensor in tensors.items()}, path)
    named: dict[str, StoredTensor] = {}
    left_out = [*others, *scales]
    for stored_name, tensor in tensors.items():
        theirs = names[stored_name]
        parts = theirs.split(".")
        if not theirs.startswith(prefix) or parts[0] in _BESIDE or not network.unused.isdisjoint(parts):
            left_out.append(stored_name)
            continue
        name = dialect.ours(theirs.removeprefix(prefix)) or theirs
        if name in named:
            twice = f"holds {name} under two names; one of them is {stored_name}"
            raise UserError(Problem(str(path), twice))
        named[name] = tensor
    config = configuration(path)
    if layout == CHECKPOINT and not config:
        model = getattr(stored_spec(path), network.part, None)
        config = network.config(model) if isinstance(model, network.spec) else {}
    return Weights(path, layout, network, dialect, named, tuple(left_out), config)


def _require_one(network: Published, shapes: Shapes, path: Path) -> None:
    whole = whole_networks(network, shapes)
    if len(whole) > 1:
        places = ", ".join(f"{prefix}*" if prefix else "names without a prefix" for prefix in whole)
        message = (
            f"holds {len(whole)} whole networks ({network.about}): {places}; nothing tells which is meant, "
            "so write the tensors of one into a file of its own and name that"
        )
        raise UserError(Problem(str(path), message))


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
    own = {name if name in names else unwrapped(name): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in own.items() if name.split(".")[0] not in _BESIDE}
