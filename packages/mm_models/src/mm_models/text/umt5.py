"""Wan's text encoder: transformers' `UMT5EncoderModel` over its own tokenizer."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ftfy
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5Tokenizer, UMT5Config, UMT5EncoderModel

from mm_config.schema import Problem, UserError
from mm_config.specs import Umt5TextEncoderSpec
from mm_models.dtypes import torch_dtype
from mm_models.loading import load_tensors, load_tensors_by_parts
from mm_models.released_json import read_release_json, require_harmless
from mm_models.releases import (
    folder_with_config,
    reading,
    reading_by_library,
    release_place,
    require_equal,
    tokenizer_places,
)
from mm_models.text.shown import shown_caption
from mm_models.text.umt5_names import transformers_config
from mm_models.waiting import without_memory

if TYPE_CHECKING:
    from mm_config.options import Locations


class Umt5TextEncoder:
    """Captions to features of their true length, then zeros: Wan's cross-attention sees these zeros too."""

    blocks = "encoder.block"
    """The module of the network whose children are its blocks."""

    def __init__(
        self,
        spec: Umt5TextEncoderSpec,
        device: torch.device | str = "cpu",
        locations: Locations | None = None,
        *,
        waits: bool = False,
    ) -> None:
        """Reads the encoder, and the tokenizer beside it (in its folder or in the neighbour `tokenizer`; in
        the original releases `google/umt5-xxl`).

        Args:
            spec: The encoder.
            device: Where it computes.
            locations: Where releases are looked up.
            waits: Whether its parameters get no memory yet; `fill` then gives values to those that have some.

        Raises:
            UserError: The weights or the tokenizer can't be found or read, or belong to another architecture.
        """
        dtype = torch_dtype(spec.dtype)
        place = release_place(spec.weights, locations, "spec.text_encoder.weights")
        with reading(place, "spec.text_encoder.weights"):
            tokenizer, network = _read_tokenizer(place), _network_on_meta(spec, place, dtype)
            if waits:
                without_memory(network, device)
            else:
                network.to_empty(device=device)
            network.set_input_embeddings(network.shared)
            own = {name: one for name, one in network.state_dict().items() if "embed_tokens" not in name}
            fill = load_tensors_by_parts(own, place) if waits else load_tensors(own, place)
        self.spec = spec
        self.device = device
        self.tokenizer: Any = tokenizer
        self.network: Any = network.requires_grad_(False).eval()
        self.fill = fill
        """Reads some of the network's parameters, by their names; None where all are read."""

    @torch.no_grad()
    def encode(self, captions: list[str]) -> Tensor:
        """Features of captions, each encoded alone, so that they depend on no other caption.

        Returns:
            `[B, max_tokens, text_dim]` float32.

        Raises:
            UserError: Captions with more tokens than `max_tokens`, unless the spec cuts them; all such are
                listed.
        """
        if long := _too_long(self.spec, self.tokenizer, captions):
            raise UserError(
                Problem("spec.text_encoder.max_tokens", f"{shown_caption(caption)} has {why}")
                for caption, why in long.items()
            )
        limit, cut = self.spec.max_tokens, self.spec.truncate
        tokens = _split(
            self.spec, self.tokenizer, captions, truncation=cut, max_length=limit if cut else None
        )
        features = torch.zeros(len(captions), limit, self.spec.text_dim, device=self.device)
        for row, ids in zip(features, tokens, strict=True):
            row[: len(ids)] = self.network(torch.tensor([ids], device=self.device)).last_hidden_state[0]
        return features

    @staticmethod
    def too_long(
        spec: Umt5TextEncoderSpec, captions: Sequence[str], locations: Locations | None = None
    ) -> dict[str, str]:
        """The captions that have more tokens than fit, each with both numbers; the tokenizer alone is read.

        Raises:
            UserError: The weights, beside which it lies, or the tokenizer can't be found or read.
        """
        return {} if spec.truncate else _too_long(spec, _tokenizer_of(spec, locations), captions)

    @staticmethod
    def token_counts(
        spec: Umt5TextEncoderSpec, captions: Sequence[str], locations: Locations | None = None
    ) -> list[int]:
        """The tokens of each caption with that of its end, before any are cut; the tokenizer alone is read.

        Raises:
            UserError: As `too_long`.
        """
        return [len(ids) for ids in _split(spec, _tokenizer_of(spec, locations), captions)]


def _tokenizer_of(spec: Umt5TextEncoderSpec, locations: Locations | None) -> Any:
    place = release_place(spec.weights, locations, "spec.text_encoder.weights")
    with reading(place, "spec.text_encoder.weights"):
        return _read_tokenizer(place)


def _too_long(spec: Umt5TextEncoderSpec, tokenizer: Any, captions: Sequence[str]) -> dict[str, str]:
    asked = [caption for caption in captions if not _surely_fits(caption, spec.max_tokens)]
    if spec.truncate or not asked:
        return {}
    tokens = _split(spec, tokenizer, asked)
    advice = "spec.text_encoder.truncate cuts it, as Wan's code and diffusers do"
    return {
        caption: f"{len(ids)} tokens, {spec.max_tokens} fit; {advice}"
        for caption, ids in zip(asked, tokens, strict=True)
        if len(ids) > spec.max_tokens
    }


def _split(spec: Umt5TextEncoderSpec, tokenizer: Any, captions: Sequence[str], **how: Any) -> list[list[int]]:
    """The tokens of each caption, all of which the network has a row for."""
    if not captions:
        return []
    folder = Path(tokenizer.name_or_path)
    with reading_by_library(folder, "spec.text_encoder.weights"):
        split: list[list[int]] = tokenizer([clean(caption) for caption in captions], **how).input_ids
    if (highest := max(max(ids, default=0) for ids in split)) >= spec.vocab_size:
        message = f"{folder} makes token {highest} of a caption, the spec has {spec.vocab_size}"
        raise UserError(Problem("spec.text_encoder.vocab_size", message))
    return split


def _surely_fits(caption: str, limit: int) -> bool:
    """Whether a caption fits however it is split: a token stands for a character of it or more, but for the
    first space and the end. Cleaning lengthens no ASCII without escapes. Most captions are told by this."""
    return caption.isascii() and "&" not in caption and len(caption) + 2 <= limit


def clean(caption: str) -> str:
    """What Wan's code (`wan/modules/tokenizers.py`, mode "whitespace") and diffusers make of a prompt.

    Mends broken encodings and unifies quotes, ligatures and widths (ftfy), undoes HTML escapes twice, since
    captions are often escaped twice, and collapses white space.
    """
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(caption))).split())


def _read_tokenizer(place: Path) -> Any:
    places = tokenizer_places(place)
    for one in places:
        if (one / "tokenizer_config.json").is_file():
            return _tokenizer(one)
    problem = f"no tokenizer_config.json in {' or '.join(map(str, places))}"
    raise UserError(Problem("spec.text_encoder.weights", problem))


_TOKENIZERS = {
    "T5Tokenizer": T5Tokenizer,
    "T5TokenizerFast": T5Tokenizer,
    "PreTrainedTokenizerFast": PreTrainedTokenizerFast,
    "TokenizersBackend": PreTrainedTokenizerFast,
}
"""The classes of UMT5's tokenizer by the names that releases give them."""
_VOCABULARIES = ("tokenizer.json", "spiece.model", "tokenizer.model")


def _tokenizer(folder: Path) -> Any:
    require_harmless(folder)
    config = folder / "tokenizer_config.json"
    name = read_release_json(config).get("tokenizer_class")
    if not isinstance(name, str) or name not in _TOKENIZERS:
        problem = f"tokenizer_class must be {' or '.join(_TOKENIZERS)}, got {name!r}"
        raise UserError(Problem(str(config), problem))
    if not any((folder / file).is_file() for file in _VOCABULARIES):
        # The library makes one without words, which splits all captions into unknown tokens.
        problem = f"no {' or '.join(_VOCABULARIES)} in {folder}"
        raise UserError(Problem("spec.text_encoder.weights", problem))
    with reading_by_library(folder, "spec.text_encoder.weights"):
        return _TOKENIZERS[name].from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _network_on_meta(spec: Umt5TextEncoderSpec, place: Path, dtype: torch.dtype) -> Any:
    """The network of a folder of transformers', or of a file, beside which there may be no configuration."""
    wanted = transformers_config(spec)
    folder = folder_with_config(place, UMT5EncoderModel.__name__)
    if folder is not None:
        stored = UMT5Config().to_dict() | read_release_json(folder / "config.json")
        require_equal(folder, stored, {name: wanted[name] for name in _COMPARED}, "spec.text_encoder")
    with torch.device("meta"):
        network: Any = UMT5EncoderModel(UMT5Config(**wanted))
    network.to(dtype)
    if dtype is torch.float16:  # Its products leave the range of float16; transformers keeps it as well.
        for name, module in network.named_modules():
            if name.endswith(".wo"):
                module.to(torch.float32)
    return network


_COMPARED = (
    *("d_model", "vocab_size", "num_layers", "num_heads", "d_kv", "d_ff", "feed_forward_proj"),
    *("relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon"),
)
"""All that shapes what the network computes; the library itself sees nothing of the file."""
