"""Fills networks from checkpoints and from published folders of safetensors."""

import json
from pathlib import Path

from torch import nn

from mm_config.errors import UserError
from mm_models import checkpoint


def load(network: nn.Module, folder: Path) -> None:
    """Fills a network, plain or sharded, from our checkpoint or from a diffusers folder.

    Values are cast to the parameters' dtype; each rank reads only its part. A network's `unused_weights` are
    parts of names that published folders hold beyond its own.

    Raises:
        UserError: The folder holds no weights or not all of them, a file is damaged, or names or shapes
            differ.
    """
    if (folder / checkpoint.MANIFEST).is_file():
        checkpoint.load_into(folder, "model", network.state_dict())
        return
    present = {path.name for path in folder.glob("*.safetensors")}
    if not present:
        raise UserError(f"{folder} holds neither a checkpoint nor safetensors files")
    for index in folder.glob("*.safetensors.index.json"):
        if absent := sorted(_files_of(index) - present):
            raise UserError(f"{index} lists files that are missing: {', '.join(absent)}")
    unused = getattr(network, "unused_weights", ())
    checkpoint.fill_from_safetensors(folder, network.state_dict(), unused)


def _files_of(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is no index of safetensors files: {error}") from error
