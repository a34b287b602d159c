"""The commands that are killed, and what each needs before: a new one is one line here."""

from __future__ import annotations

import attrs


@attrs.frozen
class Verb:
    """A command line, run in a folder in which others have run."""

    name: str
    argv: str
    """As `Commands.run` takes it."""
    before: tuple[str, ...] = ()
    """What has run in the folder."""
    killed_before: str | None = None
    """What was killed in its middle, after that."""
    again: str | None = None
    """What a user types where the fault left an unfinished run (default: the same)."""
    ranks: int = 1
    """How many processes carry it out together."""


TRAINED = ("high.py", "low.py")
ONE, TWO, LOW = "high.py --spec.steps 1", "high.py --spec.steps 2", "low.py --spec.steps 1"
THREE = "high.py --spec.steps 3"
RESUME = " --resume latest"
BESIDE = " --spec.checkpoint.asynchronous True"

VERBS = (
    Verb("render, cache and train", ONE, again=ONE + RESUME),
    Verb("train", TWO, before=(ONE,), again=TWO + RESUME),
    Verb("train beside", THREE + BESIDE, before=(ONE,), again=THREE + BESIDE + RESUME),
    Verb("train on ranks", THREE, before=(ONE,), again=THREE + RESUME, ranks=2),
    Verb("train on ranks beside", THREE + BESIDE, before=(ONE,), again=THREE + BESIDE + RESUME, ranks=2),
    Verb("start from weights", LOW, before=("high.py",), again=LOW + RESUME),
    Verb("resume", "high.py" + RESUME, killed_before="high.py"),
    Verb("generate", "video.py", before=TRAINED),
    Verb("generate one", "mm.py generate video.py --prompt circle --seed 3 --out one.mp4", before=TRAINED),
    Verb("index", "mm.py runs reindex", before=TRAINED),
    Verb("convert", "mm.py convert runs/high/*/checkpoints/*4 converted", before=("high.py",)),
    Verb("data index", "mm.py data index runs/.cache/datasets/* clips --workers 1", before=(ONE,)),
    Verb("data precompute", "mm.py data precompute high.py --out features"),
    Verb("remove", "mm.py runs rm --name low --yes", before=TRAINED),
    Verb("collect", "mm.py runs gc", before=("high.py",), killed_before="low.py"),
)
