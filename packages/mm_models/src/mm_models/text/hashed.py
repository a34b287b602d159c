"""A text encoder without weights: the signs of a hash's bits stand for each word and n-gram.

Token 0 sums the whole caption; token i > 0 is word i with the n-grams that end there. Random signs of
different n-grams are nearly orthogonal, so a linear layer can tell any of them apart.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mm_config.options import Locations
from mm_config.schema import Problem, UserError
from mm_config.specs import HashedTextEncoderSpec
from mm_models.text.shown import shown_caption

START = "^"
"""Stands before the first word in n-grams."""


class HashedTextEncoder:
    """Captions to features of mean square 1."""

    def __init__(
        self,
        spec: HashedTextEncoderSpec,
        device: torch.device | str = "cpu",
        locations: Locations | None = None,
    ) -> None:
        """Reads nothing, so it needs no location."""
        self.spec = spec
        self.device = device

    def encode(self, captions: list[str]) -> Tensor:
        """Features of captions.

        Returns:
            `[B, max_tokens, text_dim]` float32, zero beyond each caption's length; all zeros for no words.

        Raises:
            UserError: A caption has more words than fit beside the summary token; all such are listed.
        """
        if long := self.too_long(self.spec, captions):
            raise UserError(
                Problem("spec.text_encoder.max_tokens", f"{shown_caption(caption)} has {why}")
                for caption, why in long.items()
            )
        words = [caption.lower().split() for caption in captions]
        features = torch.zeros(len(captions), self.spec.max_tokens, self.spec.text_dim)
        for row, sentence in zip(features, words, strict=True):
            if sentence:
                tokens = word_features(sentence, self.spec.ngrams, self.spec.text_dim)
                row[0] = tokens.sum(dim=0) / math.sqrt(len(tokens))
                row[1 : len(tokens) + 1] = tokens
        return features.to(self.device)

    @staticmethod
    def too_long(
        spec: HashedTextEncoderSpec, captions: Sequence[str], locations: Locations | None = None
    ) -> dict[str, str]:
        """The captions that have more words than fit, each with both numbers; no weights are needed."""
        room = spec.max_tokens - 1
        counts = {caption: len(caption.split()) for caption in captions}
        return {caption: f"{count} words, {room} fit" for caption, count in counts.items() if count > room}

    @staticmethod
    def token_counts(
        spec: HashedTextEncoderSpec, captions: Sequence[str], locations: Locations | None = None
    ) -> list[int]:
        """The tokens of each caption: its words, and the summary token; no weights are needed."""
        return [len(caption.split()) + 1 if caption.split() else 0 for caption in captions]


def word_features(words: list[str], ngrams: int, dim: int) -> Tensor:
    """`[words, dim]`: the n-grams that end at each word, for n = 1..ngrams, summed to mean square 1."""
    padded = [START] * (ngrams - 1) + words
    ends = range(ngrams, len(padded) + 1)
    rows = [sum(signs(" ".join(padded[end - n : end]), dim) for n in range(1, ngrams + 1)) for end in ends]
    return torch.stack(rows) / math.sqrt(ngrams)  # type: ignore[arg-type]


def signs(text: str, dim: int) -> Tensor:
    """`[dim]` of +1 and -1, the bits of the text's SHAKE-256 hash from the lowest of its first byte on."""
    digest = hashlib.shake_256(text.encode()).digest((dim + 7) // 8)
    bits = int.from_bytes(digest, "little")
    return torch.tensor([1.0 if bits >> place & 1 else -1.0 for place in range(dim)])
