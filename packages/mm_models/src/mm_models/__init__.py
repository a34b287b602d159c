"""Networks, autoencoders, encoders, flow matching and checkpoints; imported when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_models.autoencoders import build_autoencoder
    from mm_models.images import build_image_encoder
    from mm_models.loading import load
    from mm_models.networks import build, initialize, register_network
    from mm_models.text import build_text_encoder

__all__ = [
    "build",
    "build_autoencoder",
    "build_image_encoder",
    "build_text_encoder",
    "initialize",
    "load",
    "register_network",
]

_HOMES = {
    "build": "mm_models.networks",
    "build_autoencoder": "mm_models.autoencoders",
    "build_image_encoder": "mm_models.images",
    "build_text_encoder": "mm_models.text",
    "initialize": "mm_models.networks",
    "load": "mm_models.loading",
    "register_network": "mm_models.networks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
