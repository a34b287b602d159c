"""What builds a spec's network, autoencoder, encoder or optimizer: found by the wire tag of the spec's class.

Installed packages declare builders as entry points, each named by a tag, in the groups below; a program can
also register one in a call.
"""

from typing import Any

from mm_config.schema import UserError, registered, registered_names

KINDS = {
    "mm.networks": "network",
    "mm.autoencoders": "autoencoder",
    "mm.text_encoders": "text encoder",
    "mm.image_encoders": "image encoder",
    "mm.optimizers": "optimizer",
    "mm.stages": "stage after decoding",
}
"""Groups of entry points and what the builders in them make."""

_REGISTERED: dict[tuple[str, str], Any] = {}


def register(group: str, tag: str, builder: Any) -> None:
    """Takes `builder` for the specs with a wire tag, in this process; before any that is installed."""
    _REGISTERED[group, tag] = builder


def builder_of(group: str, tag: str) -> Any:
    """What builds for the specs with a wire tag.

    Raises:
        UserError: No installed package has it, several have, or the one that has it can't be loaded.
    """
    if (group, tag) in _REGISTERED:
        return _REGISTERED[group, tag]
    kind = KINDS[group]
    if (entry := registered(group, tag)) is None:
        known = ", ".join(tags_of(group)) or "none"
        raise UserError(f"no {kind} is installed for {tag!r}; installed: {known}")
    try:
        return entry.load()
    except Exception as error:  # It is another package's code: whatever it raises becomes one line.
        what = f"the {kind} of {tag!r}, {entry.value} under {group}, can't be loaded"
        raise UserError(f"{what}: {type(error).__name__}: {error}") from error


def tags_of(group: str) -> list[str]:
    """The wire tags that something builds for; nothing is loaded."""
    return sorted({*registered_names(group), *(tag for other, tag in _REGISTERED if other == group)})
