"""What an adapter is: style, experts, ranks, layers, content, and which networks it fits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from mm_config.schema import Problem
from mm_config.specs import ModelSpec
from mm_models.lora.adapter import HIGH_NOISE, LOW_NOISE, Adapter, StoredAdapters
from mm_models.lora.files import read_adapters
from mm_models.lora.fitting import fit_problems
from mm_models.weights.inspecting import digest_of
from mm_models.weights.published import families
from mm_models.weights.tensors import in_memory

_STYLES = {
    "diffusers": "keys of diffusers",
    "peft": "keys of PEFT",
    "wan": "keys of tools around the original Wan code",
    "kohya": "flat keys of kohya's tools",
    "dcp": "our checkpoint of a training",
}


@attrs.frozen
class AdapterInspection:
    """What was found."""

    stored: StoredAdapters
    """The adapters."""
    digest: str
    """Of names, shapes, dtypes, scales and values: equal for equal adapters of every style."""
    families: tuple[str, ...]
    """The known networks whose layers it changes."""
    spec: str | None
    """The spec that was asked for, as it was named."""
    differences: tuple[Problem, ...]
    """Why it doesn't fit that spec, or any known family where none was asked for."""

    def lines(self) -> Iterator[str]:
        """A page to read."""
        stored = self.stored
        yield f"kind          adapter ({stored.style}): {_STYLES[stored.style]}"
        for expert, adapter in stored.experts.items():
            yield f"expert        {_expert(expert, stored)}"
            if adapter.layers:
                layers = adapter.layers.values()
                yield f"rank          {_counted(layer.rank for layer in layers)}"
                yield f"alpha         {_counted(f'{layer.alpha:g}' for layer in layers)}"
                yield f"scale         {_counted(f'{layer.scale:g}' for layer in layers)}"
                if more := Counter(part for layer in layers for part in layer.more):
                    yield f"beside them   {', '.join(f'{part} ({count:,})' for part, count in more.items())}"
                yield f"layers        {len(adapter.layers):,}: {', '.join(_starred(adapter.layers))}"
            if adapter.differences:
                listed = ", ".join(_starred(adapter.differences))
                yield f"differences   {len(adapter.differences):,} full ones: {listed}"
        tensors = [value for value in _tensors(stored).values() if value.ndim]
        yield f"parameters    {sum(value.numel() for value in tensors):,}"
        yield f"dtypes        {_counted(str(value.dtype).removeprefix('torch.') for value in tensors)}"
        yield f"digest        {self.digest}"
        if not self.differences:
            yield f"fits          {self.spec or ' or '.join(self.families)}"
        else:
            yield f"does not fit  {self.spec or 'any known family'}"
            yield from (f"  {problem.message}" for problem in self.differences)

    def to_json(self) -> dict[str, Any]:
        """The same as data."""
        return {
            "path": str(self.stored.path),
            "kind": "adapter",
            "style": self.stored.style,
            "experts": {name: _as_json(adapter) for name, adapter in self.stored.experts.items()},
            "digest": self.digest,
            "families": list(self.families),
            "spec": self.spec,
            "fits": not self.differences,
            "differences": [problem.message for problem in self.differences],
        }


def inspect_adapters(
    path: Path, spec: ModelSpec | None = None, named: str | None = None
) -> AdapterInspection:
    """Reads the adapters at a path and holds them against a spec, or against all known families.

    Raises:
        UserError: They can't be read, see `read_adapters`.
    """
    stored = read_adapters(path)
    fitting = tuple(name for name, model in families().items() if not _problems(stored, model))
    problems: list[Problem] = []
    if spec is not None:
        problems = _problems(stored, spec)
    elif not fitting:
        problems = [Problem(str(path), "no known family has all its layers in these shapes")]
    return AdapterInspection(stored, _digest(stored), fitting, named, tuple(problems))


def _problems(stored: StoredAdapters, spec: ModelSpec) -> list[Problem]:
    shapes = spec.parameter_shapes()
    return [
        one for adapter in stored.experts.values() for one in fit_problems(adapter, shapes, str(stored.path))
    ]


def _expert(name: str, stored: StoredAdapters) -> str:
    if len(stored.experts) == 1 and name == HIGH_NOISE:
        return "any: its keys tell none apart"
    return {HIGH_NOISE: "high noise (transformer)", LOW_NOISE: "low noise (transformer_2)"}[name]


def _as_json(adapter: Adapter) -> dict[str, Any]:
    return {
        "layers": {
            name: {"rank": layer.rank, "alpha": layer.alpha, "scale": layer.scale, "beside": list(layer.more)}
            for name, layer in adapter.layers.items()
        },
        "differences": list(adapter.differences),
    }


def _tensors(stored: StoredAdapters) -> dict[str, Tensor]:
    """All tensors under names that no style changes; scales are numbers without axes."""
    found: dict[str, Tensor] = {}
    for expert, adapter in stored.experts.items():
        for name, layer in adapter.layers.items():
            found[f"{expert}.{name}.lora_A"], found[f"{expert}.{name}.lora_B"] = layer.down, layer.up
            found[f"{expert}.{name}.scale"] = torch.tensor(layer.scale, dtype=torch.float64)
            found |= {f"{expert}.{name}.{part}": value for part, value in layer.more.items()}
        found |= {f"{expert}.{name}.difference": value for name, value in adapter.differences.items()}
    return found


def _digest(stored: StoredAdapters) -> str:
    return digest_of({name: in_memory(value) for name, value in _tensors(stored).items()})


def _counted(values: Iterable[object]) -> str:
    """`16`, or `16 (240), 32 (60)` where they differ."""
    counts = Counter(values).most_common()
    return ", ".join(str(value) if len(counts) == 1 else f"{value} ({count:,})" for value, count in counts)


def _starred(names: Mapping[str, object]) -> list[str]:
    """Names with `*` for numbers of blocks, each once."""
    return list(dict.fromkeys(re.sub(r"(?<=blocks\.)\d+", "*", name) for name in names))
