"""The kinds of features of a training: what makes each, and what their names follow from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mm_config.content import NUMERICS, Input
from mm_config.schema import Problem, UserError, canonical
from mm_config.specs import Cache, Conditioning, LatentMode, ReleasedWeights, TrainSpec

LATENTS, TEXT, CONDITION, IMAGE = "latents", "text", "condition", "image"
OF_CLIPS = (LATENTS, CONDITION, IMAGE)
"""Kinds that are made of a clip's frames, the last two of those that a network is given; text is made of
captions."""
FIELDS = {
    LATENTS: "spec.autoencoder",
    TEXT: "spec.text_encoder",
    CONDITION: "spec.autoencoder",
    IMAGE: "spec.image_encoder",
}
"""The encoder of each kind, by canonical path."""


def encoders_of(spec: TrainSpec) -> dict[str, Any]:
    """The encoders of a training by kind; those that are there."""
    found = {LATENTS: spec.autoencoder, TEXT: spec.text_encoder, IMAGE: spec.image_encoder}
    if spec.model.conditioning is not Conditioning.TEXT:
        found[CONDITION] = spec.autoencoder
    return {kind: encoder for kind, encoder in found.items() if encoder is not None}


def kept_kinds(spec: TrainSpec) -> frozenset[str]:
    """The kinds that are looked up, in a cache or among features that were computed before."""
    return cached_kinds(spec) | precomputed_kinds(spec)


def cached_kinds(spec: TrainSpec) -> frozenset[str]:
    """The kinds that a training makes before its first step, where nobody has."""
    cached = spec.data.cache is not Cache.NONE
    return frozenset(encoders_of(spec) if cached else ()) - precomputed_kinds(spec)


def precomputed_kinds(spec: TrainSpec) -> frozenset[str]:
    """The kinds that were computed before, as `data.precomputed` says: all those of clips, or none."""
    if (before := spec.data.precomputed) is None:
        return frozenset()
    return frozenset(kind for kind in encoders_of(spec) if (before.text if kind == TEXT else before.latents))


def made_with(spec: TrainSpec, kind: str, weights: Input | None) -> dict[str, Any]:
    """What a kind's features follow from beside clips and captions, as JSON.

    Released weights count by what they are, not by their name; a sample of latents is drawn from what is
    kept, so that both modes share it.

    Args:
        spec: The training.
        kind: Of features.
        weights: What the encoder's released weights are; None where it has none, or they are not known.
    """
    encoder = encoders_of(spec)[kind]
    fields: Any = canonical(encoder)
    fields = {name: value for name, value in fields.items() if name != "latent_mode"}
    if isinstance(getattr(encoder, "weights", None), ReleasedWeights):
        fields["weights"] = None if weights is None else weights.digest
    # Rounded products make other features.
    rounded = {"allow_tf32": True} if spec.precision.allow_tf32 else {}
    given = {}
    if kind == CONDITION or (kind == IMAGE and spec.model.conditioning is Conditioning.FIRST_AND_LAST_FRAME):
        given = {"conditioning": spec.model.conditioning.value}
    return {"kind": kind, "numerics": NUMERICS, **rounded, **given, "encoder": fields}


def weights_field(kind: str) -> str:
    """The canonical path of the weights that make a kind, as a run's inputs have it."""
    return f"{FIELDS[kind]}.weights"


def weights_of(inputs: Mapping[str, Input], kind: str) -> Input | None:
    """What a kind's weights are, of a run's inputs."""
    return inputs.get(weights_field(kind))


def draws_sample(spec: TrainSpec) -> bool:
    """Whether latents are a sample of what the autoencoder gives."""
    return getattr(spec.autoencoder, "latent_mode", None) is LatentMode.SAMPLE


def require_equal(made: Mapping[str, Any], wanted: Mapping[str, Any], kind: str, where: str) -> None:
    """Holds what made features against what the spec names.

    Raises:
        UserError: They were made with another encoder, other weights or by other numerics.
    """
    ours, theirs = dict(wanted), dict(made)
    encoder, other = dict(ours.pop("encoder")), dict(theirs.pop("encoder", {}))
    for fields in (encoder, other):
        if encoder.get("weights") is None or other.get("weights") is None:
            fields["weights"] = None  # Weights that are not here can't be compared.
    names = sorted(name for name in {*encoder, *other} if encoder.get(name) != other.get(name))
    problems = [
        Problem(
            f"{FIELDS[kind]}.{name}",
            f"is {encoder.get(name)!r}, but the {kind} in {where} were made with {other.get(name)!r}",
        )
        for name in names
    ]
    problems += [
        Problem(
            "spec.data.precomputed", f"{where} was made with {name} {theirs.get(name)}, now {ours.get(name)}"
        )
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
    if problems:
        raise UserError(problems)
