"""What to say where torch can't be imported because of an extension, which it loads by itself.

torch_npu fails so in every shell in which CANN's `set_env.sh` was not sourced.
"""

from __future__ import annotations

import re

import attrs


@attrs.frozen
class ExtensionFailure:
    """An extension that failed while torch was imported."""

    reason: str
    """What is wrong with which extension."""
    remedy: str
    """What to do about it."""


def extension_failure(error: Exception) -> ExtensionFailure | None:
    """What an error says of one of torch's extensions; None for any other error.

    Afterwards torch can't be imported in the same process, also without its extensions.
    """
    found = re.match(r"Failed to load the backend extension: (\w+)\.", str(error))
    if not isinstance(error, RuntimeError) or found is None:
        return None
    name, why = found[1], " ".join(str(error.__cause__ or "").split()).rstrip(".")
    setup = "source set_env.sh of CANN and ask mm doctor --device npu" if name == "torch_npu" else "repair it"
    return ExtensionFailure(
        f"can't be imported, because it loads {name}, which fails: {why}",
        f"{setup}; without {name}: TORCH_DEVICE_BACKEND_AUTOLOAD=0",
    )
