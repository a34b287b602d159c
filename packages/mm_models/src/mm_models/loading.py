"""Fills networks from weights of any kind and states from checkpoints; tells beforehand what fits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from mm_config.console import say
from mm_models.lora.training import base_state
from mm_models.weights.filling import fill, require_fit
from mm_models.weights.layouts import read_group
from mm_models.weights.opening import open_for
from mm_models.weights.quantised import quantised_lines


def load(network: nn.Module, path: Path) -> None:
    """Fills a network, plain or sharded, from our checkpoint or from weights that others wrote.

    Wan's transformer is read from every kind that `mm inspect` knows, other networks under their own names.
    Values are cast to the parameters' dtype; each rank reads only its part.

    Args:
        network: On its device, with memory for its parameters.
        path: A folder or a file.

    Raises:
        UserError: Nothing there is weights, a file is damaged or would have to be executed, names, shapes or
            dtypes don't fit, or a configuration beside them has another number of heads or epsilon than the
            network's `spec`; no parameter is touched then. Or a part of a file is not what was written,
            which is found as it is read.
    """
    load_tensors(base_state(network), path, getattr(network, "spec", None))


def load_tensors(targets: Mapping[str, Tensor], path: Path, model: object = None) -> None:
    """Fills tensors by their names in a network, as `load` does, whose spec is `model` where it has one."""
    stored = open_for(targets, path, model)
    fill(targets, stored, path)
    for line in quantised_lines(stored):
        say(f"{path}: {line}")


def load_by_parts(network: nn.Module, path: Path) -> Callable[[Collection[str]], None]:
    """What fills some parameters of a network at a time, by their names and as often as it is called.

    Args:
        network: Its parameters need memory only while they are filled.
        path: As for `load`.

    Raises:
        UserError: As `load`, but for what is found as values are read; the function raises that.
    """
    return load_tensors_by_parts(base_state(network), path, getattr(network, "spec", None))


def load_tensors_by_parts(
    targets: Mapping[str, Tensor], path: Path, model: object = None
) -> Callable[[Collection[str]], None]:
    """As `load_by_parts`, for tensors by their names in a network, whose spec is `model` where it has one."""
    stored = open_for(targets, path, model)
    require_fit(targets, stored, path)
    for line in quantised_lines(stored):
        say(f"{path}: {line}")

    def load_some(names: Collection[str]) -> None:
        fill({name: targets[name] for name in names}, {name: stored[name] for name in names}, path, bar=False)

    return load_some


def check(network: nn.Module, path: Path) -> None:
    """Raises what `load` would, but for values, from the files' headers alone; the network may be on meta."""
    targets = base_state(network)
    require_fit(targets, open_for(targets, path, getattr(network, "spec", None)), path)


def load_group(folder: Path, group: str, tensors: Mapping[str, Tensor]) -> None:
    """Fills tensors in place from a group of one of our checkpoints; each rank reads only its part.

    Raises:
        UserError: Files are missing or are not those that were written, the group is missing, or its names,
            shapes or dtypes differ.
    """
    fill(tensors, read_group(folder, group), folder / group)
