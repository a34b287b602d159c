"""Names of adapters' tensors, of every kind, and why a file of them is not used."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

BESIDE = (".lora_A.weight", ".lora_B.weight")
"""How the names of parameters end that stand as adapters beside a network's layers."""
EXECUTED = (".pt", ".pth", ".bin", ".ckpt")
"""Kinds of files that adapters are not read from."""
_ADAPTER = re.compile(
    r"[._]lora[._](?:A|B|down|up|mid|linear_layer|bias|magnitude_vector|embedding_[AB])\b"
    r"|\.(?:dora_scale|diff(?:_[bm])?|[wb]_norm)$"
)
_REFUSED = (
    (re.compile(r"\.hada_[wt]"), "LoHa"),
    (re.compile(r"\.lokr_"), "LoKr"),
    (re.compile(r"\.oft_(?:blocks|diag|R\b)|\.oft_r"), "OFT"),
    (re.compile(r"\.(?:a|b)[12]\.weight$|\.bm\.weight$"), "GLoRA"),
    (re.compile(r"\.(?:on_input|ia3_l)\b"), "IA3"),
    (re.compile(r"\.lora_mid\."), "a Tucker decomposition"),
    (re.compile(r"\.lora_(?:A|down)(?:\.[^.]+)?\.bias$"), "a bias of the first matrix"),
    (re.compile(r"\.lora_embedding_"), "an adapter of an embedding"),
    (re.compile(r"^(?:text_encoder|lora_te)"), "an adapter of a text encoder"),
)


def refusal(keys: Iterable[str]) -> str | None:
    """The first key of a known kind of adapter that is not carried out, with its kind."""
    found = ((key, why) for key in keys for pattern, why in _REFUSED if pattern.search(key))
    return next((f"{key} is {why}, which is not carried out" for key, why in found), None)


def not_opened(path: Path) -> str | None:
    """Why no adapter is read from a kind of file; None where one is."""
    if path.suffix not in EXECUTED:
        return None
    return "adapters are read from safetensors alone: this kind of file can hold code"


def no_network(names: Collection[str], path: Path) -> str | None:
    """Why tensors that are an adapter's can't be a network's weights, as `read_adapters` would refuse them.

    Args:
        names: Of the tensors, none of which is a known network's.
        path: The file or folder.

    Returns:
        None where they are no adapter's.
    """
    if why := refusal(names):
        return why
    if not any(_ADAPTER.search(name) for name in names):
        return None
    return not_opened(path) or (
        "is an adapter (LoRA), not a network's weights; it belongs in spec.loras of a generation, "
        "or in spec.lora.start_from of a training"
    )
