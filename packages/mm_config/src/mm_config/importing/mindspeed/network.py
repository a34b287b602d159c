"""Which family a file's network belongs to."""

from __future__ import annotations

from typing import Any

import attrs

from mm_config.families import wan21, wan22
from mm_config.importing.mindspeed.book import Book
from mm_config.importing.mindspeed.model_rows import NETWORK_SIZES
from mm_config.importing.verdict import Verdict
from mm_config.schema.errors import SpecError
from mm_config.schema.types import is_tuple
from mm_config.specs.family import Family
from mm_config.specs.kinds import Conditioning
from mm_config.specs.wan import WanTransformerSpec
from mm_config.specs.weights import ReleasedWeights

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
FAMILIES = {
    "wan21.T2V_1_3B": wan21.T2V_1_3B,
    "wan21.T2V_14B": wan21.T2V_14B,
    "wan21.I2V_14B_480P": wan21.I2V_14B_480P,
    "wan21.I2V_14B_720P": wan21.I2V_14B_720P,
    "wan21.FLF2V_14B": wan21.FLF2V_14B,
    "wan22.T2V_A14B": wan22.T2V_A14B,
    "wan22.I2V_A14B": wan22.I2V_A14B,
    "wan22.TI2V_5B": wan22.TI2V_5B,
}
EXPERIMENTS = {
    "wan21.T2V_1_3B": "wan21_t2v_1_3b",
    "wan21.T2V_14B": "wan21_t2v_14b",
    "wan21.I2V_14B_480P": "wan21_i2v_14b",
    "wan21.I2V_14B_720P": "wan21_i2v_14b",
    "wan21.FLF2V_14B": "wan21_flf2v_14b",
    "wan22.T2V_A14B": "wan22",
    "wan22.I2V_A14B": "wan22_i2v",
    "wan22.TI2V_5B": "wan22_ti2v_5b",
}


def release_of(family: Family) -> str:
    """The logical name of the release that a family's autoencoder comes with."""
    weights = getattr(family.autoencoder, "weights", None)
    return weights.name if isinstance(weights, ReleasedWeights) else ""


def has_image_branch(book: Book, kind: str) -> bool:
    """Whether the network sees a frame through an image encoder."""
    if not book.has(kind, "predictor."):
        return False
    word = book.raw(kind, "predictor.model_type", "t2v")
    return isinstance(word, str) and word in _CONDITIONING and _CONDITIONING[word][1]


def family_of(book: Book, kind: str, experts: bool) -> tuple[str, Family]:
    """The name and the value of the family, the file's own network put in.

    Args:
        book: The facts.
        kind: `model.json` or `inference_model.json`.
        experts: Whether the files tell of two experts.
    """
    if not book.has(kind, "predictor."):
        book.say(
            Verdict.DEFAULT,
            "predictor",
            "no file tells the network: the family is wan22.T2V_A14B, as in wan22_high",
        )
        return "wan22.T2V_A14B", wan22.T2V_A14B
    model = _model(book, kind)
    name = _named(model, experts, _is_large(book, kind))
    if name is not None:
        return name, attrs.evolve(FAMILIES[name], model=model)
    book.say(
        Verdict.DERIVED,
        "predictor",
        "no published network has these sizes: there are no released weights to start from",
    )
    return "", _plain(model)


def _model(book: Book, kind: str) -> WanTransformerSpec:
    """The network; sizes that can't be are put off until the spec is built, where each is told with its
    line.
    """
    base = wan21.WIDTH_1_3B
    values: dict[str, Any] = {}
    for row in NETWORK_SIZES:
        value = book.get(kind, row.path)
        if value is not None:
            values[row.target.removeprefix("model.")] = value
    if book.raw(kind, "predictor.model_id") == "custom_dit":
        values |= _custom(book)
    word = book.raw(kind, "predictor.model_type", "t2v")
    fact = book.fact(kind, "predictor.model_type")
    if not isinstance(word, str) or word not in _CONDITIONING:
        if fact is not None:
            book.refuse(fact, f"is no type of network; one of {', '.join(MODEL_TYPES)}")
        word = "t2v"
    conditioning, branch = _CONDITIONING[word]
    values["conditioning"] = conditioning
    values["image_dim"] = book.get(kind, "predictor.img_dim", 1280) if branch else None
    two = conditioning is Conditioning.FIRST_AND_LAST_FRAME
    values["image_positions"] = 2 * CLIP_TOKENS if two else None
    for name in ("conditioning", "image_dim", "image_positions"):
        book.set(f"model.{name}", values[name], fact)
    book.map(fact, "model.conditioning", conditioning)
    try:
        return attrs.evolve(base, **values)
    except SpecError:
        return attrs.evolve(base, conditioning=conditioning)


def _custom(book: Book) -> dict[str, Any]:
    """The developer guide's own class has diffusers' names, and says the width of a head."""
    book.mark(
        book.fact("model.json", "predictor.model_id"),
        Verdict.DERIVED,
        "the developer guide's own class is imported as Wan's transformer of the same sizes, whose norms "
        "differ",
    )
    fact = book.fact("model.json", "predictor.head_dim")
    heads, width = book.get("model.json", "predictor.num_heads"), book.raw("model.json", "predictor.head_dim")
    values: dict[str, Any] = {}
    if fact is not None:
        if isinstance(heads, int) and isinstance(width, int) and 0 < width < 65536:
            values["hidden_size"] = heads * width
            book.map(fact, "model.hidden_size", heads * width)
        else:
            book.refuse(fact, "expected the width of one head")
    for name, ours in (("in_channels",) * 2, ("out_channels",) * 2, ("rope_max_seq_len",) * 2):
        value = book.get("model.json", f"predictor.{name}")
        if value is not None:
            values[ours] = value
    return values


def _is_large(book: Book, kind: str) -> bool:
    size = book.raw(kind, "pipeline_config.input_size")
    height: Any = size[1] if is_tuple(size) and len(size) == 3 else None
    height = height or book.raw("data.json", "dataset_param.preprocess_parameters.max_height")
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
