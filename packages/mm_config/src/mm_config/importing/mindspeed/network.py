"""Which family a file's network belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from mm_config.families import wan21, wan22
from mm_config.importing.mindspeed.files import Files, Known, is_count
from mm_config.importing.mindspeed.keys import DATA, INFERENCE, MAX, MIN, MODEL, PRE
from mm_config.importing.mindspeed.places import FAMILIES
from mm_config.importing.readings import Reading, given, refused, said, silent
from mm_config.importing.values import real
from mm_config.importing.verdict import Verdict
from mm_config.schema.errors import Problem, SpecError, UserError
from mm_config.schema.types import is_tuple
from mm_config.specs.diffusion import Expert
from mm_config.specs.family import Family
from mm_config.specs.kinds import Conditioning
from mm_config.specs.wan import WanTransformerSpec

CLIP_TOKENS = 257
_CONDITIONING = {
    "t2v": (Conditioning.TEXT, False),
    "wan2.2-t2v": (Conditioning.TEXT, False),
    "ti2v": (Conditioning.CLEAN_FIRST_FRAME, False),
    "i2v": (Conditioning.FIRST_FRAME, True),
    "flf2v": (Conditioning.FIRST_AND_LAST_FRAME, True),
    "wan2.2-i2v": (Conditioning.FIRST_FRAME, False),
}
MODEL_TYPES = tuple(_CONDITIONING)


_CLASSES = ("wandit", "custom_dit")
_SIZES = (
    "patch_size",
    "in_channels",
    "out_channels",
    "hidden_size",
    "ffn_dim",
    "freq_dim",
    "text_dim",
    "num_attention_heads",
    "num_layers",
    "eps",
    "rope_max_seq_len",
)
"""Fields of our spec that keys of the network are alone read as."""


def check_network(files: Files) -> None:
    """Refuses another model's file at once, before each of its keys would be unknown.

    Raises:
        UserError: The network is none of Wan's.
    """
    for kind in (files.kind, MODEL, INFERENCE):
        fact = files.fact(kind, "predictor.model_id")
        if fact is not None and fact.value not in _CLASSES:
            what = (
                f"{str(fact.value).upper()} networks are" if fact.value == "vace" else "is a network that is"
            )
            message = f"{fact.path} is {fact.value!r}: {what} not in our specs, only Wan's own (wandit)"
            raise UserError(Problem(fact.place, message))


def known_of(files: Files) -> Known:
    """The family that the files' network belongs to, the file's own network put in."""
    expert = _expert(files)
    experts = files.holds("experts") if files.generation else expert is not Expert.SINGLE
    if not files.has(files.kind, "predictor."):
        return Known("wan22.T2V_A14B", wan22.T2V_A14B, expert)
    model = _model(files)
    name = _named(model, experts, _is_large(files))
    if name is not None:
        return Known(name, attrs.evolve(FAMILIES[name], model=model), expert)
    return Known("", _plain(model), expert)


def network(files: Files, known: Known) -> Iterator[Reading]:
    """`model`: what no single key says of it."""
    if not files.has(files.kind, "predictor."):
        text = f"no file tells the network: the family is {known.name}, as in wan22_high"
        yield said(Verdict.DEFAULT, "predictor", text)
        return
    if not known.name:
        text = "no published network has these sizes: there are no released weights to start from"
        yield said(Verdict.DERIVED, "predictor", text)
    word, fact = _type(files), files.fact(files.kind, "predictor.model_type")
    if fact is not None and fact.value not in MODEL_TYPES:
        yield refused(fact, f"is no type of network; one of {', '.join(MODEL_TYPES)}")
    conditioning, branch = _CONDITIONING[word]
    about = fact or "predictor.model_type"
    yield given(about, "model.conditioning", conditioning)
    two = conditioning is Conditioning.FIRST_AND_LAST_FRAME
    yield silent(about, "model.image_positions", 2 * CLIP_TOKENS if two else None)
    dim = files.fact(files.kind, "predictor.img_dim")
    if not branch or dim is None:
        yield silent(about, "model.image_dim", 1280 if branch else None)
    if files.holds("custom"):
        yield from _custom_readings(files)


def _custom_readings(files: Files) -> Iterator[Reading]:
    """The developer guide's own class has diffusers' names, and says the width of a head."""
    name, fact = files.fact(MODEL, "predictor.model_id"), files.fact(MODEL, "predictor.head_dim")
    if name is not None:
        text = (
            "the developer guide's own class is imported as Wan's transformer of the same sizes, whose "
            "norms differ"
        )
        yield said(Verdict.DERIVED, name, text)
    if fact is not None and (hidden := _custom_width(files)) is not None:
        yield given(fact, "model.hidden_size", hidden)
    elif fact is not None:
        yield refused(fact, "expected the width of one head")


def _custom_width(files: Files) -> int | None:
    heads, width = files.get(MODEL, "predictor.num_heads"), files.raw(MODEL, "predictor.head_dim")
    return heads * width if is_count(heads) and is_count(width) and width < 65536 else None


def _expert(files: Files) -> Expert:
    """The expert that a training file is for; what it says beyond that is told by `noise`."""
    if not files.has(MODEL, "predictor.") and not files.has(MODEL, "diffusion."):
        return Expert.HIGH_NOISE
    least, most = fraction(files, MIN, 0.0), fraction(files, MAX, 1.0)
    if least > 0 and most == 1:
        return Expert.LOW_NOISE
    return Expert.HIGH_NOISE if least == 0 and most < 1 else Expert.SINGLE


def fraction(files: Files, path: str, default: float) -> float:
    """A fraction of the index axis; the default where it can't be read."""
    try:
        return real(files.raw(MODEL, path, default))
    except ValueError:
        return default


def _type(files: Files) -> str:
    word = files.raw(files.kind, "predictor.model_type", "t2v")
    return word if isinstance(word, str) and word in _CONDITIONING else "t2v"


def _model(files: Files) -> WanTransformerSpec:
    """The network; sizes that can't be are put off until the spec is built, where each is told with its
    line.
    """
    kind, base = files.kind, wan21.WIDTH_1_3B
    values: dict[str, Any] = {}
    for row in files.table.rows:
        name = row.target.removeprefix("model.")
        if row.kind == kind and name in _SIZES and (not row.when or files.holds(row.when)):
            value = files.get(kind, row.path)
            if value is not None and (files.fact(kind, row.path) or name not in values):
                values[name] = value
    if files.holds("custom") and (hidden := _custom_width(files)) is not None:
        values["hidden_size"] = hidden
    conditioning, branch = _CONDITIONING[_type(files)]
    values["conditioning"] = conditioning
    values["image_dim"] = files.get(kind, "predictor.img_dim", 1280) if branch else None
    two = conditioning is Conditioning.FIRST_AND_LAST_FRAME
    values["image_positions"] = 2 * CLIP_TOKENS if two else None
    try:
        return attrs.evolve(base, **values)
    except SpecError:
        return attrs.evolve(base, conditioning=conditioning)


def _is_large(files: Files) -> bool:
    size = files.raw(files.kind, "pipeline_config.input_size")
    height: Any = size[1] if is_tuple(size) and len(size) == 3 else None
    height = height or files.raw(DATA, f"{PRE}.max_height")
    return isinstance(height, int) and height >= 720


def _named(model: WanTransformerSpec, experts: bool, large: bool) -> str | None:
    for name, family in FAMILIES.items():
        two = family.boundary is not None
        if _sizes(family.model) == _sizes(model) and two == experts and not (large and name.endswith("480P")):
            return name
    return None


def _sizes(model: Any) -> tuple[Any, ...]:
    """What decides the shapes of the weights."""
    names = ("hidden_size", "ffn_dim", "num_layers", "in_channels", "out_channels", "patch_size", "text_dim")
    more = ("num_attention_heads", "freq_dim", "image_dim", "image_positions")
    return tuple(getattr(model, name) for name in (*names, *more))


def _plain(model: WanTransformerSpec) -> Family:
    """A family without published weights, with the encoders of the family that has such latents."""
    near = wan22.TI2V_5B if model.out_channels == 48 else wan21.T2V_14B
    image_encoder = None if model.image_dim is None else wan21.I2V_14B_480P.image_encoder
    return attrs.evolve(near, model=model, image_encoder=image_encoder, high_noise=None, low_noise=None)
