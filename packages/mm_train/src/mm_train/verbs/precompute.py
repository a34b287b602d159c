"""`mm data precompute`: features computed ahead, on one machine or many."""

from __future__ import annotations

from pathlib import Path

from mm_config.cli import (
    LOCATION,
    RUNS_DIR,
    TARGET_HELP,
    CommandLine,
    Option,
    Usage,
    Verb,
    read_targets,
    runs_dir_of,
)
from mm_config.console import say
from mm_config.options import RunOptions, load_locations
from mm_config.schema import Problem, UserError
from mm_config.specs import TrainSpec

OUT = Option("--out", "Folder for the features; without it they go into the trainings' cache.", "DIR")
ENGINE = Option(
    "--engine",
    "Who shares the work: the ranks that torchrun starts (default), or the nodes of a Ray cluster.",
    "NAME",
    ("ranks", "ray"),
)
FROM_MINDSPEED = Option(
    "--from-mindspeed",
    "Convert what MindSpeed-MM extracted, its sorafeature.save_path, instead of encoding.",
    "DIR",
)
USAGE = Usage(
    "mm data precompute TARGET [--out DIR] [--engine NAME] [--from-mindspeed DIR] [--location NAME=PATH] "
    "[--spec.FIELD VALUE ...] [--runs-dir DIR]",
    "Encode a training's clips and captions ahead.",
    "Decodes and encodes what a training would see: latents (mean and log-variance, where the autoencoder "
    "has them), text features of each caption once, and of frames that the network is given what the "
    "autoencoder and the image encoder make of them. "
    "What is there already is not made again, so a command that was killed goes on where it was. With --out "
    "it prints the line for the spec, with the digest of all that was computed; a training with that line "
    "builds no encoder. Under torchrun each rank encodes its share.\n\n"
    f"{TARGET_HELP}",
    (OUT, ENGINE, FROM_MINDSPEED, LOCATION, RUNS_DIR),
    (
        (
            "mm data precompute experiments/tiny_high.py --out features",
            "into a folder, with the line for the spec",
        ),
        (
            "torchrun --nproc-per-node 8 $(which mm) data precompute experiments/tiny_high.py --out features",
            "on eight devices",
        ),
        (
            "mm data precompute experiments/tiny_high.py --out /shared/features --engine ray",
            "on a Ray cluster",
        ),
    ),
)


def precompute(line: CommandLine) -> int:
    """Computes the features of a training's data."""
    (spec,) = read_targets(line)
    if not isinstance(spec, TrainSpec):
        raise UserError(Problem(line.words[0], "is no training, whose data could be encoded"))
    locations = load_locations(line.values(LOCATION))
    options = RunOptions(runs_dir=runs_dir_of(line), locations=locations, argv=line.argv)

    from mm_train.precomputing import convert_features, precompute_features

    out = Path(line.value(OUT)) if line.has(OUT) else None
    if line.value(ENGINE) == "ray" and (out is None or line.has(FROM_MINDSPEED)):
        raise UserError(
            Problem(ENGINE.flag, "is ray, which encodes into a folder that all nodes share; name it by --out")
        )
    if line.has(FROM_MINDSPEED):
        if out is None:
            raise UserError(Problem(OUT.flag, "says where converted features go; it is missing"))
        found = convert_features(spec, options, Path(line.value(FROM_MINDSPEED)), out)
    else:
        found = precompute_features(spec, options, out, by_ray=line.value(ENGINE) == "ray")
    for text in found:
        say(text)
    return 0


VERB = Verb(USAGE, precompute)
