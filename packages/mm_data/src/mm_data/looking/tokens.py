"""How many tokens a text encoder makes of captions, where its tokenizer is at hand."""

from __future__ import annotations

from collections.abc import Sequence

from mm_config.options import Locations
from mm_config.schema import UserError, loaded, registered, tag_of
from mm_config.specs import TextEncoderSpec

GROUP = "mm.text_encoders"
"""Entry points of text encoders; one that can tell has a static `token_counts(spec, captions, locations)`."""


def token_counts(
    encoder: TextEncoderSpec, captions: Sequence[str], locations: Locations
) -> tuple[list[int], str]:
    """The tokens of each caption before any are cut; or none, and why they are unknown."""
    tag = tag_of(encoder)
    try:
        entry = registered(GROUP, tag)
        tell = getattr(loaded(entry, tag), "token_counts", None) if entry else None
        if tell is None:
            return [], f"no package says how {tag} makes tokens"
        return tell(encoder, captions, locations), ""
    except UserError as error:
        return [], "; ".join(map(str, error.problems))
