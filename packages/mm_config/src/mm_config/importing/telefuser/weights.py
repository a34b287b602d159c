"""Readings of weights: which model of a dump is which, by logical names whose paths become locations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import attrs

from mm_config.importing.telefuser.places import Place, names_of, original_of, place_of
from mm_config.importing.telefuser.readings import Config, Dump, Finding, Said, Told, Value, Wrong
from mm_config.importing.verdict import Verdict
from mm_config.specs.lora import AppliedLoraSpec
from mm_config.specs.weights import ReleasedWeights

HIGH, LOW = "high_noise", "low_noise"
VAE, TEXT, IMAGE = "autoencoder.weights", "text_encoder.weights", "image_encoder.weights"
UNUSED, UNKNOWN = "unused", ""
_SMALL = "TAEHV is a small decoder with weights of its own, none of ours"
_WORDS = {
    UNUSED: ("tokenizer", "vfi", "rife", "rift", "ifnet"),
    TEXT: ("text", "t5"),
    IMAGE: ("image", "clip"),
    VAE: ("vae", "taehv"),
    HIGH: ("dit", "wanmodel"),
}
"""What a model's name or class holds."""


@attrs.frozen
class Model:
    """One model of the dump."""

    role: str
    """The canonical path of its weights, or `unused`; empty where it is none of Wan's."""
    entry: Config
    """Where it stands."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Its files; empty where the dump has none."""
        value = self.entry.at("path").value or ()
        return tuple(filter(None, (value,) if isinstance(value, str) else value))


def models_of(layer1: Config) -> tuple[Model, ...]:
    """The models that a dump lists, each in its role."""
    entries = layer1.many("models")
    networks = [entry for entry in entries if _role(entry) == HIGH]
    return tuple(
        Model(_expert(entry, networks) if entry in networks and len(networks) > 1 else _role(entry), entry)
        for entry in entries
    )


def _role(entry: Config) -> str:
    for text in (f"{entry.at('name').value}".lower(), f"{entry.at('class').value}".lower()):
        for role, words in _WORDS.items():
            if any(word in text for word in words):
                return role
    return UNKNOWN


def _expert(entry: Config, networks: list[Config]) -> str:
    """Which expert a network is: by its name, its path, or else the order, high noise first."""
    path = PurePosixPath((Model(HIGH, entry).paths or ("",))[0])
    for text in (f"{entry.at('name').value}", path.name, path.parent.name):
        if "high" in text:
            return HIGH
        if "low" in text or text == "transformer_2":
            return LOW
    return HIGH if entry is networks[0] else LOW


@attrs.frozen
class Named:
    """The weights of a dump by logical names."""

    by_key: Mapping[str, ReleasedWeights]
    """By the key of their path."""
    locations: Mapping[str, str]
    """The folder that each name stands for; empty where the dump does not say it."""
    original: str
    """The family's release in the original layout, where the dump takes models of it; else empty."""

    def left(self, role: str, official: ReleasedWeights, two: bool) -> ReleasedWeights:
        """Weights that the dump does not list: the official ones, in the layout that the others have."""
        if self.original != original_of(official.name) or role == IMAGE:
            return official
        file = "Wan2.2_VAE.pth" if "TI2V" in self.original else "Wan2.1_VAE.pth"
        network = "diffusion_pytorch_model.safetensors" + ("" if "1.3B" in self.original else ".index.json")
        inside = {
            HIGH: "high_noise_model" if two else network,
            LOW: "low_noise_model",
            VAE: file,
            TEXT: "models_t5_umt5-xxl-enc-bf16.pth",
        }
        return ReleasedWeights(name=self.original, subfolder=inside[role])


def named(dump: Dump) -> Named:
    """Logical names for all paths of a dump, models' and adapters'."""
    places: dict[str, Place] = {}
    for model in models_of(dump.root.inside("layer1_model_definition")):
        if model.role not in (UNUSED, UNKNOWN) and model.paths and (place := place_of(model.paths)):
            places[model.entry.key] = place
    for network in dump.networks:
        for adapter in network.many("lora_configs"):
            if (path := adapter.at("path").value) and (place := place_of((path,))):
                places[adapter.key] = place
    names = names_of(places.values())
    weights = {
        key: ReleasedWeights(name=names[place], subfolder=place.inside) for key, place in places.items()
    }
    own = getattr(dump.known.family.high_noise, "name", "")
    original = original_of(own) if original_of(own) in names.values() else ""
    return Named(weights, {names[place]: place.root for place in places.values()}, original)


def models(dump: Dump) -> Iterator[Finding]:
    """The weights of each network and encoder, those that the dump leaves out in the layout of the others."""
    family, names = dump.known.family, named(dump)
    official = {
        HIGH: family.high_noise,
        LOW: family.low_noise,
        VAE: getattr(family.autoencoder, "weights", None),
        TEXT: getattr(family.text_encoder, "weights", None),
        IMAGE: getattr(family.image_encoder, "weights", None),
    }
    seen = set[str]()
    for model in models_of(dump.root.inside("layer1_model_definition")):
        path, weights = model.entry.at("path"), names.by_key.get(model.entry.key)
        name = PurePosixPath((model.paths or ("",))[0]).name
        small = model.role == VAE and f"{model.entry.at('class').value}".upper().startswith("TAEHV")
        if model.role == UNUSED or (model.role == UNKNOWN and not model.paths):
            yield Told(path, Verdict.OUTSIDE, "the spec has no such model")
        elif model.role == UNKNOWN:
            text = "no part of Wan's pipelines here; the spec leaves it out"
            yield Told(model.entry, Verdict.UNKNOWN, text)
        elif official[model.role] is None:
            text = f"{dump.known.title} has no {model.role.partition('.')[0]}; the spec leaves it out"
            yield Told(path, Verdict.DEAD, text)
        elif small and not name.lower().startswith("wan2"):
            yield Told(path, Verdict.REFUSED, f"{_SMALL}: the spec decodes by Wan's own autoencoder")
        elif model.role in seen:
            yield Wrong(model.entry.at("name"), f"a second model for {model.role}")
        elif model.paths and weights is None:
            yield Wrong(path, "names files of several folders; one network lies in one")
        elif weights is not None:
            seen.add(model.role)
            if small:
                text = f"{_SMALL}; {name}, which the spec takes, is Wan's"
                yield Told(model.entry.at("class"), Verdict.CONFLICT, text)
            title = ", ".join(filter(None, (weights.name, weights.subfolder)))
            verdict = Verdict.MAPPED if names.locations[weights.name] else Verdict.OPEN
            yield Told(path, verdict, f"spec.{model.role}: {title}")
            yield Said(model.role, weights, path)
        else:
            yield Told(path, Verdict.DERIVED, "no path: the official weights")
    for role, weights in official.items():
        if role not in seen and isinstance(weights, ReleasedWeights):
            missing = Value(None, f"layer1_model_definition.models ({role})", dump.root.line, given=False)
            yield Said(role, names.left(role, weights, family.low_noise is not None), missing)


def adapters(dump: Dump) -> Iterator[Finding]:
    """`loras`: adapters of both experts with equal strengths are pairs, in order."""
    lists = [network.many("lora_configs") for network in dump.networks]
    if not any(lists):
        return
    by_key = named(dump).by_key
    for adapter in (adapter for adapters in lists for adapter in adapters if adapter.key not in by_key):
        yield Wrong(adapter.at("path"), "is empty; an adapter lies in a file or folder")
        return
    experts = [[(by_key[one.key], one.at("strength").value) for one in adapters] for adapters in lists]
    first = next(adapter for adapters in lists for adapter in adapters).at("path")
    high, low = (experts[0], experts[1] if len(experts) > 1 else [])
    if [by for _, by in high] == [by for _, by in low]:
        made = [(one, other, by) for (one, by), (other, _) in zip(high, low, strict=True)]
    else:
        made = [*((one, None, by) for one, by in high), *((None, one, by) for one, by in low)]
    loras = tuple(AppliedLoraSpec(high_noise=one, low_noise=other, strength=by) for one, other, by in made)
    yield Said("loras", loras, first)
