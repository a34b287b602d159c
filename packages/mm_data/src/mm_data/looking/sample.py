"""`mm data sample`: what the model sees, as videos and pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mm_config.cli import LOCATION, RUNS_DIR, CommandLine, Option, Usage, Verb, whole_number
from mm_config.console import print_lines, say, typed_path
from mm_config.rules import counted
from mm_config.schema import Problem, UserError


def _folder(text: str) -> Path:
    path = Path(text)
    if path.exists():
        raise UserError(f"{text!r} exists already; choose another name")
    if not path.absolute().parent.is_dir():
        raise UserError(f"the folder {str(path.parent)!r} does not exist")
    return path


COUNT = Option("-n", "Samples (default: 8).", "N", read=whole_number)
STEP = Option(
    "--step",
    "The optimizer step that they begin with (default: 0).",
    "N",
    read=partial(whole_number, least=0),
)
OUT = Option("--out", "The folder to write.", "DIR", read=_folder, missing="name the folder to write")
USAGE = Usage(
    "mm data sample TARGET --out DIR [-n N] [--step N] [--spec.FIELD VALUE ...]",
    "Write what the model sees of some clips, as videos.",
    "Takes the clips that the first optimizer steps of a training ask for, or those from --step on, and "
    "writes what the model is given of them: the frames that are chosen, resized, cropped and mirrored, as "
    "an mp4 each (a png where it is one frame), with the caption as it is then in a text beside. "
    "contact_sheet.png shows all of them; samples.txt says which clip each one is.\n\n"
    "A target is a training: an experiment file, a saved spec, a run folder, a run id or a hash prefix.",
    (OUT, COUNT, STEP, RUNS_DIR, LOCATION),
    (
        ("mm data sample experiments/tiny_high.py --out seen", "the first eight samples"),
        (
            "mm data sample experiments/tiny_high.py --out cropped --spec.data.resize center_crop",
            "with other transforms",
        ),
    ),
)


def sample(line: CommandLine) -> int:
    """Writes samples."""
    from mm_data.looking.samples import samples_of, write_samples
    from mm_data.looking.subject import subject_of

    subject = subject_of(line)
    if subject.data is None:
        raise UserError(Problem(line.words[0], "is no training, which would say what becomes of clips"))
    out: Path = line.value(OUT)
    try:
        seen = write_samples(out, subject, samples_of(subject, line.value(STEP, 0), line.value(COUNT, 8)))
    except OSError as error:
        raise UserError(Problem(str(out), f"can't be written: {error.strerror}")) from error
    bad = [one for one in seen if one.bad]
    print_lines(f"can't be used: {one.name}: {one.bad}" for one in bad)
    say(f"{counted(len(seen) - len(bad), 'sample')} in {typed_path(out)}/, all of them in contact_sheet.png")
    return 0


VERB = Verb(USAGE, sample)
