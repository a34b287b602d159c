"""Wan's text encoder: transformers' `UMT5EncoderModel` over its own tokenizer."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ftfy
import torch
from torch import Tensor
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from mm_config.schema import Problem, UserError
from mm_config.specs import Umt5TextEncoderSpec
from mm_models.dtypes import torch_dtype
from mm_models.releases import read_pretrained, reading, release_folder, require_equal

if TYPE_CHECKING:
    from mm_config.options import Locations


class Umt5TextEncoder:
    """Captions to features of their true length, then zeros: Wan's cross-attention sees these zeros too."""

    def __init__(
        self,
        spec: Umt5TextEncoderSpec,
        device: torch.device | str = "cpu",
        locations: Locations | None = None,
    ) -> None:
        """Reads the encoder, and the tokenizer beside it (in its folder or in the neighbour `tokenizer`).

        Raises:
            UserError: The weights or the tokenizer can't be found or read, or belong to another architecture.
        """
        dtype = torch_dtype(spec.dtype)
        folder = release_folder(spec.weights, locations, "spec.text_encoder.weights")
        with reading(folder, "spec.text_encoder.weights"):
            tokenizer, network = _read_tokenizer(folder), _read_network(spec, folder, dtype)
        self.spec = spec
        self.device = device
        self.tokenizer: Any = tokenizer
        self.network: Any = network.to(device).requires_grad_(False).eval()  # type: ignore[arg-type]

    @torch.no_grad()
    def encode(self, captions: list[str]) -> Tensor:
        """Features of captions, each encoded alone, so that they depend on no other caption.

        Returns:
            `[B, max_tokens, text_dim]` float32.

        Raises:
            UserError: Captions with more tokens than `max_tokens`, unless the spec cuts them; all such are
                listed.
        """
        limit, cut = self.spec.max_tokens, self.spec.truncate
        tokens = [
            self.tokenizer(clean(caption), truncation=cut, max_length=limit if cut else None).input_ids
            for caption in captions
        ]
        if too_long := [
            (caption, len(t)) for caption, t in zip(captions, tokens, strict=True) if len(t) > limit
        ]:
            advice = "spec.text_encoder.truncate cuts it, as Wan's code and diffusers do"
            raise UserError(
                Problem(
                    "spec.text_encoder.max_tokens", f"{caption!r} has {count} tokens, {limit} fit; {advice}"
                )
                for caption, count in too_long
            )
        features = torch.zeros(len(captions), limit, self.spec.text_dim, device=self.device)
        for row, ids in zip(features, tokens, strict=True):
            row[: len(ids)] = self.network(torch.tensor([ids], device=self.device)).last_hidden_state[0]
        return features


def clean(caption: str) -> str:
    """What Wan's code (`wan/modules/tokenizers.py`, mode "whitespace") and diffusers make of a prompt.

    Mends broken encodings and unifies quotes, ligatures and widths (ftfy), undoes HTML escapes twice, since
    captions are often escaped twice, and collapses white space.
    """
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(caption))).split())


def _read_tokenizer(folder: Path) -> Any:
    for place in (folder, folder.parent / "tokenizer"):
        if (place / "tokenizer_config.json").is_file():
            return AutoTokenizer.from_pretrained(place, local_files_only=True)
    problem = f"no tokenizer_config.json in {folder} or {folder.parent / 'tokenizer'}"
    raise UserError(Problem("spec.text_encoder.weights", problem))


def _read_network(spec: Umt5TextEncoderSpec, folder: Path, dtype: torch.dtype) -> UMT5EncoderModel:
    wanted = {
        "d_model": spec.text_dim,
        "vocab_size": spec.vocab_size,
        "num_layers": spec.num_layers,
        "num_heads": spec.num_heads,
        "d_kv": spec.d_kv,
        "d_ff": spec.d_ff,
    }
    stored = UMT5Config.from_pretrained(folder, local_files_only=True).to_dict()
    require_equal(folder, stored, wanted, "spec.text_encoder")
    return read_pretrained(UMT5EncoderModel, folder, dtype, "spec.text_encoder.weights")
