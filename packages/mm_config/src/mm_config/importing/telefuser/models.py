"""Layer 1 of a dump: which model is which, its weights by a logical name, its path as a location."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import attrs

from mm_config.importing.telefuser.config import Config, Findings, Value
from mm_config.importing.telefuser.families import Known, words_of
from mm_config.importing.telefuser.locations import Hint, named_after
from mm_config.importing.verdict import Verdict
from mm_config.specs.kinds import Weights
from mm_config.specs.weights import ReleasedWeights

HIGH, LOW, VAE, TEXT, IMAGE = (
    "high_noise",
    "low_noise",
    "autoencoder.weights",
    "text_encoder.weights",
    "image_encoder.weights",
)
ROLES = (HIGH, LOW, VAE, TEXT, IMAGE)
"""Canonical paths of the weights that a dump names."""
UNUSED = "unused"

# Files of the original releases, which every release of the same parts holds unchanged.
_ORIGINAL_ENCODERS = {
    VAE: re.compile(r"Wan2\.[12]_VAE\.(pth|safetensors)"),
    TEXT: re.compile(r"models_t5_umt5-xxl-enc-bf16\.(pth|safetensors)"),
    IMAGE: re.compile(r"models_clip_open-clip-xlm-roberta-large-vit-huge-14\S*\.(pth|safetensors)"),
}
_ORIGINAL_NETWORKS = re.compile(
    r"((high|low)_noise_model(/diffusion_pytorch_model.*)?|diffusion_pytorch_model.*)?"
)


@attrs.frozen
class Model:
    """One model of the dump."""

    role: str
    """A canonical path of `ROLES`, or `unused`."""
    path: str
    """Empty where the dump has none."""
    value: Value
    """Where its path stands."""


def models_of(layer1: Config, found: Findings) -> tuple[Model, ...]:
    """The models that a dump names, each in its role."""
    made: list[Model] = []
    entries = layer1.many("models")
    networks = [entry for entry in entries if _kind(entry) == HIGH]
    for entry in entries:
        path = entry.at("path")
        role = _kind(entry)
        if role == "":
            found.refuse(
                entry.at("name"),
                f"{entry.at('name').value!r} of class {entry.at('class').value!r} is no model of Wan's "
                "pipelines; a name holds dit, vae, text_encoder, image_encoder or tokenizer",
            )
            continue
        if role == HIGH and len(networks) > 1:
            role = _noise(entry, networks)
        if role != UNUSED and any(model.role == role for model in made):
            found.refuse(entry.at("name"), f"a second model for {role}: {entry.at('name').value!r}")
            continue
        made.append(Model(role, path.value or "", path))
        _note_class(entry, role, found)
    return tuple(made)


def _kind(entry: Config) -> str:
    name = f"{entry.at('name').value}".lower()
    if "tokenizer" in name or "vfi" in name or "rife" in name:
        return UNUSED
    parts = ((TEXT, ("text", "t5")), (IMAGE, ("image", "clip")), (VAE, ("vae",)), (HIGH, ("dit",)))
    return next((role for role, words in parts if any(word in name for word in words)), "")


def _noise(entry: Config, networks: list[Config]) -> str:
    """Which expert a network is: by its name, its path, or else the order, high noise first."""
    for text in (entry.at("name").value, PurePosixPath(entry.at("path").value or "").name):
        if "high" in text:
            return HIGH
        if "low" in text or text == "transformer_2":
            return LOW
    parent = PurePosixPath(entry.at("path").value or "").parent.name
    if "low" in parent or parent == "transformer_2":
        return LOW
    return HIGH if "high" in parent or entry is networks[0] else LOW


def _note_class(entry: Config, role: str, found: Findings) -> None:
    name, path = entry.at("class"), entry.at("path").value or ""
    if role == UNUSED:
        found.remark(entry.at("path"), Verdict.OUTSIDE, "the spec has no such model")
    elif name.value.startswith("TAEHV"):
        file = PurePosixPath(path).name
        if role == VAE and _ORIGINAL_ENCODERS[VAE].fullmatch(file):
            found.remark(
                name,
                Verdict.CONFLICT,
                f"TAEHV is a small decoder with weights of its own; {file}, which the spec takes, is Wan's "
                "autoencoder",
            )
        else:
            found.refuse(
                name, "TAEHV, a small decoder that only resembles Wan's autoencoder, is none of ours"
            )


def weights_of(
    models: tuple[Model, ...], known: Known, found: Findings
) -> tuple[dict[str, tuple[Weights, Value]], tuple[Hint, ...]]:
    """The weights of each role that a dump says, and where they lay.

    A path in a folder of the family's release, or to one of its files, is that release; any other is
    weights of its own, named after its folder.
    """
    official = {
        HIGH: known.family.high_noise,
        LOW: known.family.low_noise,
        VAE: getattr(known.family.autoencoder, "weights", None),
        TEXT: getattr(known.family.text_encoder, "weights", None),
        IMAGE: getattr(known.family.image_encoder, "weights", None),
    }
    made: dict[str, tuple[Weights, Value]] = {}
    hints: list[Hint] = []
    own: list[Model] = []
    for model in models:
        release = official.get(model.role)
        if model.role == UNUSED:
            continue
        if release is None:
            found.refuse(model.value, f"{known.title} has no {model.role.partition('.')[0]}; take it out")
        elif not model.path:
            text = "no path: the official weights"
            found.remark(model.value, Verdict.DERIVED, text)
        elif isinstance(release, ReleasedWeights) and (hint := _official(model, release, known)):
            found.remark(model.value, Verdict.MAPPED, f"spec.{model.role}: {_title(release)}")
            hints.append(hint)
        else:
            own.append(model)
    named = named_after({model.path: model.path for model in own})
    for model in own:
        weights, hint = named[model.path]
        made[model.role] = (weights, model.value)
        found.remark(
            model.value, Verdict.MAPPED, f"spec.{model.role}: weights of your own, called {_title(weights)}"
        )
        hints.append(hint)
    return made, tuple(hints)


def _title(weights: ReleasedWeights) -> str:
    return f"{weights.name}, {weights.subfolder}" if weights.subfolder else weights.name


def _official(model: Model, release: ReleasedWeights, known: Known) -> Hint | None:
    """Where the release lies, if the path is one of its parts."""
    path = PurePosixPath(model.path)
    if model.path == f"{release.name}/{release.subfolder}":
        return Hint(release.name, "", "the dump names no folder")
    short = release.name.rpartition("/")[2]
    shorts = (short, short.removesuffix("-Diffusers"), short.removesuffix("-diffusers"))
    original = "holds the original layout; the folder of the release in diffusers' layout is wanted"
    for index, part in enumerate(path.parts):
        if part not in shorts:
            continue
        root, rest = str(PurePosixPath(*path.parts[: index + 1])), "/".join(path.parts[index + 1 :])
        if rest == release.subfolder or rest.startswith(f"{release.subfolder}/"):
            return Hint(release.name, root, "")
        if model.role in (HIGH, LOW) and _ORIGINAL_NETWORKS.fullmatch(rest):
            return Hint(release.name, root, original)
    pattern = _ORIGINAL_ENCODERS.get(model.role)
    if pattern and pattern.fullmatch(path.name):
        return Hint(release.name, str(path.parent), original)
    distilled = known.family.distilled and model.role in (HIGH, LOW)
    if distilled and "distilled" in words_of(path.name):
        return Hint(release.name, str(path.parent), original)
    return None
