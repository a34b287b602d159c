"""Parts of a pipeline folder as diffusers has it: networks, encoders, tokenizers.

Each part is written into a folder of its own, inside one that the caller has staged.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from mm_config.durable import sync
from mm_config.schema import Problem, UserError, gathering
from mm_config.specs import (
    ClipImageEncoderSpec,
    InferSpec,
    Umt5TextEncoderSpec,
    WanAutoencoderSpec,
    WanTransformerSpec,
)
from mm_models.released_json import read_release_json
from mm_models.releases import release_folder, release_place, tokenizer_places
from mm_models.weights.converting import SHARD_BYTES, convert
from mm_models.weights.published import published
from mm_models.weights.tensors import in_memory
from mm_models.weights.writing import Item, write_json, write_sharded

if TYPE_CHECKING:
    from mm_config.options import Locations

Part = tuple[str, str]
"""The library and the class that open a part."""
TRANSFORMER: Part = ("diffusers", "WanTransformer3DModel")
_CLASSES = {
    "model": (WanTransformerSpec,),
    "autoencoder": (WanAutoencoderSpec,),
    "text_encoder": (Umt5TextEncoderSpec,),
    "image_encoder": (ClipImageEncoderSpec, type(None)),
}
"""The specs that diffusers has classes for, by their field."""
_OF_TOKENIZERS = (".json", ".model", ".txt")


def part_problems(spec: InferSpec, locations: Locations | None) -> Iterator[Problem]:
    """What of a generation no pipeline of diffusers can hold, and what of its files is missing."""
    for field, known in _CLASSES.items():
        if not isinstance(value := getattr(spec, field), known):
            message = (
                f"is {type(value).__name__}, which no pipeline of diffusers has; {known[0].__name__} can be"
            )
            yield Problem(f"spec.{field}", message)
        elif field != "model" and value is not None:
            path, problems = f"spec.{field}.weights", list[Problem]()
            with gathering(problems):
                find = release_folder if field == "image_encoder" else release_place
                place = find(value.weights, locations, path)
                if field == "text_encoder":
                    _tokenizer_of(place, path)
            yield from problems


def write_network(source: Path | nn.Module, spec: InferSpec, out: Path) -> Part:
    """Writes an expert: as its weights are stored, or as a network in memory holds it."""
    if isinstance(source, Path):
        convert(source, out, "diffusers", spec=spec)
        return TRANSFORMER
    network = next(one for one in published() if isinstance(spec.model, one.spec))
    values = source.state_dict()
    items = [Item(name, in_memory(values[name]), values[name].dtype) for name in network.shapes(spec.model)]
    out.mkdir()
    write_sharded(out, items, SHARD_BYTES, network.stem, lambda: None)
    write_json(out / "config.json", network.config(spec.model, "diffusers"))
    return TRANSFORMER


def write_encoders(spec: InferSpec, locations: Locations | None, folder: Path) -> dict[str, Part]:
    """Writes what stands beside the experts: `vae`, `text_encoder`, `tokenizer`, and of I2V `image_encoder`.

    Raises:
        UserError: Weights are damaged or belong to another architecture.
    """
    text = release_place(_weights(spec.text_encoder), locations, "spec.text_encoder.weights")
    autoencoder = release_place(_weights(spec.autoencoder), locations, "spec.autoencoder.weights")
    convert(autoencoder, folder / "vae", "diffusers", spec=spec)
    convert(text, folder / "text_encoder", "diffusers", spec=spec)
    tokenizer = _tokenizer_of(text, "spec.text_encoder.weights")
    _copy((file for file in tokenizer.iterdir() if file.suffix in _OF_TOKENIZERS), folder / "tokenizer")
    parts = {
        "vae": ("diffusers", "AutoencoderKLWan"),
        "text_encoder": ("transformers", "UMT5EncoderModel"),
        "tokenizer": ("transformers", _class_of(tokenizer)),
    }
    if spec.image_encoder is None:
        return parts
    from mm_models.images.clip import ClipImageEncoder, processor_config

    assert isinstance(spec.image_encoder, ClipImageEncoderSpec)
    encoder = ClipImageEncoder(spec.image_encoder, "cpu", locations)
    encoder.network.save_pretrained(folder / "image_encoder")
    (folder / "image_processor").mkdir()
    config = processor_config(spec.image_encoder)
    write_json(folder / "image_processor" / "preprocessor_config.json", config)
    return {
        **parts,
        "image_encoder": ("transformers", "CLIPVisionModel"),
        "image_processor": ("transformers", "CLIPImageProcessor"),
    }


def _weights(spec: Any) -> Any:
    return spec.weights


def _tokenizer_of(place: Path, path: str) -> Path:
    found = (one for one in tokenizer_places(place) if (one / "tokenizer_config.json").is_file())
    if (tokenizer := next(found, None)) is None:
        raise UserError(Problem(path, f"{place} has no tokenizer in it or beside it"))
    return tokenizer


def _class_of(tokenizer: Path) -> str:
    """The class of a tokenizer; what opens the file of any is the one without a name of its own."""
    name = read_release_json(tokenizer / "tokenizer_config.json").get("tokenizer_class")
    return name if name in ("T5Tokenizer", "T5TokenizerFast") else "PreTrainedTokenizerFast"


def _copy(files: Iterator[Path], out: Path) -> None:
    out.mkdir()
    for file in sorted(files):
        shutil.copyfile(file, out / file.name)
        sync(out / file.name)
