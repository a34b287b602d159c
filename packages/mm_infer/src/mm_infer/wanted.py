"""The videos that a run is to make, and where they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from mm_config.runs import Run
from mm_config.specs import GenerationRequest
from mm_infer.latents import FOLDER
from mm_infer.latents import SUFFIX as LATENTS_SUFFIX
from mm_infer.naming import file_names


@attrs.frozen
class Wanted:
    """A video to make: what is asked for, the run that records it, and where it goes."""

    request: GenerationRequest
    """What is asked for."""
    name: str
    """Of its file among a run's samples, from prompt and seed."""
    run: Run
    """Keeps its latents and previews; several videos may have the same."""
    path: Path
    """The mp4, absolute."""
    latents: Path
    """Where its latents are kept, absolute."""


def wanted_of(
    requests: Sequence[GenerationRequest], run: Run, paths: Sequence[Path] | None = None
) -> list[Wanted]:
    """The videos of one run; without paths they lie among its samples."""
    names = file_names(requests)
    files = [run.samples_dir / name for name in names] if paths is None else paths
    return [
        Wanted(
            request=request,
            name=name,
            run=run,
            path=file.absolute(),
            latents=(run.path / FOLDER / name).with_suffix(LATENTS_SUFFIX).absolute(),
        )
        for request, file, name in zip(requests, files, names, strict=True)
    ]


def videos_in_result(
    wanted: Sequence[Wanted], told: Sequence[Mapping[str, str | int]]
) -> list[dict[str, str | int]]:
    """What a result says of each video, beside what was told of its file."""
    return [
        {
            "name": one.name,
            "prompt": one.request.prompt,
            "seed": one.request.seed,
            "path": str(one.path),
            **said,
            "latents": str(one.latents),
        }
        for one, said in zip(wanted, told, strict=True)
    ]
