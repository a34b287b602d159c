"""What a model sees of some steps: clips after all transforms as videos, their captions, one sheet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path

import attrs
from PIL import Image

from mm_config.durable import staged_folder
from mm_config.schema import Problem, UserError
from mm_data.bad import BadClip
from mm_data.clips import Clip, load_clip
from mm_data.looking.inspection import shape_name
from mm_data.looking.sheet import Strip, frame_moments, write_contact_sheet
from mm_data.looking.subject import Subject
from mm_data.records import Asked
from mm_data.video.writing import write_mp4

FRAMES = 5
"""Of each clip, on the contact sheet."""


@attrs.frozen(eq=False)
class Sample:
    """A clip as a step has it."""

    step: int
    """The optimizer step."""
    name: str
    """Its file."""
    asked: Asked
    """What the plan asked for."""
    clip: Clip | None
    """What the model sees; None where the clip can't be used."""
    bad: str = ""
    """Why it can't be used."""


def samples_of(subject: Subject, first: int, most: int) -> Iterator[Sample]:
    """The clips that the steps from `first` on ask for, in their order, each read when its turn comes.

    Raises:
        UserError: The training takes no clips, or the machine can't read them.
    """
    return islice(_samples(subject, first), most)


def _samples(subject: Subject, first: int) -> Iterator[Sample]:
    data, dataset = subject.data, subject.dataset
    assert data is not None
    plan = subject.plan()
    for step in count(first):
        planned = plan.batch(step)
        for index, draw in zip(planned.indices, planned.draws, strict=True):
            asked = Asked(dataset.records[index], index, planned.shape, draw)
            try:
                yield Sample(step, dataset.name_of(index), asked, load_clip(asked, data))
            except BadClip as error:
                yield Sample(step, dataset.name_of(index), asked, None, str(error))


def write_samples(folder: Path, subject: Subject, samples: Iterable[Sample]) -> list[Sample]:
    """Writes a folder that is whole or not there; one clip is held in memory at a time.

    For each sample a video, or a picture where it has one frame, and its caption in a text of the same name;
    `contact_sheet.png` shows all of them, `samples.txt` says which is which.

    Returns:
        The samples without their frames.

    Raises:
        UserError: No sample can be used.
        OSError: It can't be written.
    """
    assert subject.data is not None
    with staged_folder(folder) as stage:
        lines: list[str] = []
        strips: list[Strip] = []
        seen: list[Sample] = []
        for sample in samples:
            name = f"{len(seen):03d}-{_file_name(sample.name)}"
            lines.append(_line(name, sample))
            seen.append(attrs.evolve(sample, clip=None))
            if sample.clip:
                _write(stage / name, sample.clip, subject.data.fps)
                shown = frame_moments(len(sample.clip.frames), FRAMES)
                strips.append(Strip(sample.clip.frames[shown], sample.clip.caption))
        if not strips:
            why = f"{seen[0].bad}; none of {len(seen)} samples can be used"
            raise UserError(Problem(seen[0].name, why))
        (stage / "samples.txt").write_text("\n".join(lines) + "\n", "utf-8", "surrogateescape")
        steps = f"what the model sees, steps {seen[0].step} to {seen[-1].step}"
        sheet = stage / "contact_sheet.png"
        write_contact_sheet(sheet, strips, title=subject.title, subtitle=steps, columns=2, frames=FRAMES)
    return seen


def _write(path: Path, clip: Clip, fps: float) -> None:
    if len(clip.frames) == 1:
        Image.fromarray(clip.frames[0].numpy()).save(path.with_name(f"{path.name}.png"))
    else:
        write_mp4(path.with_name(f"{path.name}.mp4"), clip.frames, fps)
    path.with_name(f"{path.name}.txt").write_text(clip.caption + "\n", "utf-8")


def _line(name: str, sample: Sample) -> str:
    what = f"left out, {sample.bad}" if sample.bad else shape_name(sample.asked.shape)
    return f"{name}: step {sample.step}, {what}, of {sample.name}"


def _file_name(name: str) -> str:
    """The end of a clip's name as a file's on any system."""
    return re.sub(r"[^\w-]+", "_", Path(name).stem, flags=re.ASCII)[:60] or "clip"
