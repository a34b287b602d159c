"""What two runs of one spec left behind, compared: metrics and checkpoints by step, videos, scores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config.reproducing.difference import Difference, changed_numbers
from mm_config.reproducing.metrics import COMPARED, metric_differences, read_metrics
from mm_config.reproducing.videos import score_of, video_differences, videos_of
from mm_config.rules.wording import counted
from mm_config.schema.errors import UserError
from mm_config.schema.installed import loaded, registered
from mm_config.stored.mp4 import frames_digest

GROUP = "mm.checkpoints"
"""The function `differences(step, old, new)` of the package that writes checkpoints, of two folders."""
_STEP_FOLDER = re.compile(r"step-(\d{8,})")


@attrs.frozen
class Comparison:
    """What was compared, and what differed."""

    steps: int
    """Optimizer steps whose metrics were compared."""
    checkpoints: tuple[int, ...]
    """Steps of the checkpoints that both runs had."""
    videos: int
    """Videos."""
    scores: tuple[str, ...]
    """Names of the scores."""
    differences: tuple[Difference, ...]
    """In order: step by step, then videos, then scores. None where all is the same to the last bit."""

    @property
    def identical(self) -> bool:
        """Whether nothing that was compared differs."""
        return not self.differences


def compare(old: Path, new: Path, last_step: int | None = None, whole: bool = True) -> Comparison:
    """Compares two run folders of one spec.

    Args:
        old: The stored run's folder.
        new: The reproduced run's folder.
        last_step: Last optimizer step to compare, after which the new run was stopped; None compares all
            that both left behind.
        whole: Whether the stored run was finished, so that whatever it lacks is a difference; of an
            unfinished one, what it has is compared.

    Raises:
        UserError: A file of a run can't be read.
    """
    before, after = read_metrics(old), read_metrics(new)
    kept, rewritten = _checkpoints_of(old), _checkpoints_of(new)
    steps = [step for step in sorted({*before, *after}) if last_step is None or step <= last_step]
    both = [step for step in sorted({*kept} & {*rewritten}) if last_step is None or step <= last_step]
    # What comes after the last step is there only where both went on to it.
    ended = last_step is None
    films, refilmed = (videos_of(folder) if ended else {} for folder in (old, new))
    videos = {*films, *refilmed} if whole else {*films}
    scores: list[Mapping[str, Any]] = [score_of(folder) if ended and whole else {} for folder in (old, new)]

    def differences() -> Iterator[Difference]:
        for step in sorted({*steps, *both}):
            yield from metric_differences(step, before.get(step), after.get(step))
            if step in both:
                yield from _checkpoint_differences(step, kept[step], rewritten[step])
        for name in sorted(videos):
            yield from video_differences(name, films.get(name), refilmed.get(name))
        yield from changed_numbers("score", *scores)

    return Comparison(
        steps=len(steps),
        checkpoints=tuple(both),
        videos=len(videos),
        scores=tuple({**scores[0], **scores[1]}),
        differences=tuple(differences()),
    )


def compare_video(old: Path, new: Path, written: str | None) -> Comparison:
    """Compares a video with the one that was made again.

    Args:
        old, new: The files.
        written: The digest of the old frames when they were written; None where it is not known.
    """
    found = tuple(video_differences(old.name, old, new))
    if written is not None and frames_digest(old) != written:
        found = tuple(attrs.evolve(one, damaged=True) for one in found)
    return Comparison(steps=0, checkpoints=(), videos=1, scores=(), differences=found)


def told(comparison: Comparison) -> str:
    """What was compared, in words: `8 steps (loss, grad_norm, lr), 2 checkpoints (steps 6, 8)`."""
    parts: list[str] = []
    if comparison.steps or comparison.checkpoints:
        parts.append(f"{counted(comparison.steps, 'step')} ({', '.join(COMPARED)})")
        listed = ", ".join(map(str, comparison.checkpoints))
        count = counted(len(comparison.checkpoints), "checkpoint")
        steps = "steps" if len(comparison.checkpoints) > 1 else "step"
        parts.append(f"{count} ({steps} {listed})" if listed else "no checkpoint of a step that both have")
    if comparison.videos:
        parts.append(counted(comparison.videos, "video"))
    if comparison.scores:
        parts.append(f"score ({', '.join(comparison.scores)})")
    return ", ".join(parts)


def _checkpoints_of(run_dir: Path) -> dict[int, Path]:
    """The checkpoints of a run folder by step; those still being written are left out."""
    folders = sorted((run_dir / "checkpoints").glob("step-*"))
    matches = ((_STEP_FOLDER.fullmatch(folder.name), folder) for folder in folders)
    return {int(match[1]): folder for match, folder in matches if match}


def _checkpoint_differences(step: int, old: Path, new: Path) -> Iterator[Difference]:
    if (entry := registered(GROUP, "differences")) is None:
        raise UserError(f"no installed package compares checkpoints, such as {old}")
    return loaded(entry, entry.value)(step, old, new)
