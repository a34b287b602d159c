"""How a message names a caption."""

SHOWN_CHARACTERS = 60
"""Characters of a caption that a message quotes."""


def shown_caption(caption: str) -> str:
    """A caption in quotation marks, without its end where it is long: a message stays one line to read."""
    return repr(caption if len(caption) <= SHOWN_CHARACTERS else f"{caption[:SHOWN_CHARACTERS]}...")
