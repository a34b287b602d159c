"""Keys of adapters in the styles that they are published in.

A key is a prefix, the name of a layer, and an ending. diffusers writes `transformer.` (other tools also
`transformer_2.` for the low-noise expert), PEFT `base_model.model.`, tools around the original Wan code
`diffusion_model.`, `pipe.dit.` or nothing, and kohya's `lora_unet_` with `_` for every dot, or for some.
Endings are `lora_A`/`lora_B` of PEFT, perhaps with an adapter's name, `lora_down`/`lora_up` of kohya,
`lora.down`/`lora.up` of older diffusers, `alpha`, DoRA's `lora_magnitude_vector` of PEFT and `dora_scale` of
LyCORIS, and full differences: `diff` of a weight, `diff_b` of a bias and `diff_m` of a modulation table.
Wrappers leave parts such as `_orig_mod.` inside of names, which are taken out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import attrs

from mm_models.lora.adapter import HIGH_NOISE, LOW_NOISE
from mm_models.weights.names import Dialect
from mm_models.weights.published import generating

Kind = Literal["down", "up", "bias", "magnitude", "dora_scale", "alpha", "difference"]


@attrs.frozen
class Key:
    """What a tensor of an adapter's file is."""

    expert: str
    """HIGH_NOISE or LOW_NOISE."""
    style: str
    """What its prefix tells; empty without one."""
    name: str
    """Of the layer, or of the parameter for a full difference, as the file spells it."""
    kind: Kind
    """Which part of the layer's change it is."""


_PREFIXES = (
    ("transformer_2.", LOW_NOISE, "diffusers"),
    ("transformer.", HIGH_NOISE, "diffusers"),
    ("base_model.model.", HIGH_NOISE, "peft"),
    ("model.diffusion_model.", HIGH_NOISE, "wan"),
    ("diffusion_model.", HIGH_NOISE, "wan"),
    ("pipe.dit.", HIGH_NOISE, "wan"),
    ("lora_unet_", HIGH_NOISE, "kohya"),
    ("lora_transformer_", HIGH_NOISE, "kohya"),
    ("lycoris_", HIGH_NOISE, "kohya"),
    ("", HIGH_NOISE, ""),
)
_ENDINGS: tuple[tuple[re.Pattern[str], Kind, str], ...] = (
    (re.compile(r"\.lora_(?:A|down)(?:(?:\.[^.]+)?\.weight)?$"), "down", ""),
    (re.compile(r"\.lora_(?:B|up)(?:(?:\.[^.]+)?\.weight)?$"), "up", ""),
    (re.compile(r"\.lora(?:_linear_layer)?\.down\.weight$"), "down", ""),
    (re.compile(r"\.lora(?:_linear_layer)?\.up\.weight$"), "up", ""),
    (re.compile(r"\.lora_(?:B|up)(?:\.[^.]+)?\.bias$"), "bias", ""),
    (re.compile(r"\.lora_magnitude_vector(?:(?:\.[^.]+)?\.weight)?$"), "magnitude", ""),
    (re.compile(r"\.dora_scale$"), "dora_scale", ""),
    (re.compile(r"(?:\.lora)?\.alpha$"), "alpha", ""),
    (re.compile(r"\.(?:diff|w_norm)$"), "difference", ".weight"),
    (re.compile(r"\.(?:diff_b|b_norm)$"), "difference", ".bias"),
    (re.compile(r"\.diff_m$"), "difference", ".modulation"),
)
_REWRITTEN = (
    (re.compile(r"^module\."), ""),
    (re.compile(r"(?<![^._])(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)[._]"), ""),
    (re.compile(r"(?:\.processor)?\.(to_[qkv]|add_[qkv]_proj)_lora\."), r".\1.lora."),
    (re.compile(r"(?:\.processor)?\.to_out_lora\."), ".to_out.0.lora."),
)
"""Parts that wrappers leave, and the names of diffusers' old attention processors."""


_LEAF = re.compile(r"\.(?:weight|bias)$")
"""What `parse` adds to a module's name for a full difference."""


def parse(key: str) -> Key | None:
    """What a key says; None where it is no adapter's."""
    for pattern, replacement in _REWRITTEN:
        key = pattern.sub(replacement, key)
    prefix, expert, style = next(row for row in _PREFIXES if key.startswith(row[0]))
    rest = key.removeprefix(prefix)
    for ending, kind, leaf in _ENDINGS:
        if (found := ending.search(rest)) and found.start() > 0:
            return Key(expert, style, rest[: found.start()] + leaf, kind)
    return None


def our_names(names: Iterable[str], *, flattened: bool) -> Mapping[str, str]:
    """Our names of layers and parameters by a file's.

    They are translated by the table of a published network that knows most of them; all others stay as they
    are, for any network may have them.

    Args:
        names: Of one file.
        flattened: Whether dots are written as `_`, all or some; a name that no table has is left out then.
    """
    names = list(names)
    dialects = [dialect for network in generating() for dialect in network.dialects]
    # The first of equals is ours, so names that are ours already stay.
    known = max((_translated(names, dialect, flattened) for dialect in dialects), key=len)
    return known if flattened else {name: known.get(name, name) for name in names}


def _translated(names: Iterable[str], dialect: Dialect, flattened: bool) -> dict[str, str]:
    """Our names by those that a dialect knows."""
    found: dict[str, str] = {}
    for name in names:
        dotted = _dotted(name, dialect) if flattened else name
        ours = None if dotted is None else dialect.ours(dotted)
        if ours is not None:
            found[name] = ours
    return found


def _dotted(name: str, dialect: Dialect) -> str | None:
    """`blocks_0_self_attn_q.weight` -> `blocks.0.self_attn.q.weight`."""
    stem, leaf = (name, "") if not (found := _LEAF.search(name)) else (name[: found.start()], found[0])
    stem = stem.replace(".", "_")
    number = re.match(r"blocks_(\d+)_", stem)
    starred = re.sub(r"^blocks_\d+_", "blocks_*_", stem)
    found = dialect.flattened.get(starred)
    return None if found is None else found.replace("*", number[1] if number else "") + leaf
