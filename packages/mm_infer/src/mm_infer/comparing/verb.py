"""`mm compare`: two specs on the same requests, and what a speed-up costs. Imports torch once it computes."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import attrs

from mm_config.cli import (
    ACCEPT_CONTENT,
    JSON,
    LOCATION,
    RUNS_DIR,
    TARGET_HELP,
    CommandLine,
    Option,
    Usage,
    Verb,
    read_generations,
    runs_dir_of,
)
from mm_config.console import print_json, print_lines, set_by_torchrun
from mm_config.npu import exported
from mm_config.options import RunOptions, load_locations
from mm_config.schema import Problem, UserError, gathering
from mm_config.specs import GenerationRequest, InferSpec
from mm_infer.asking import OPTIONS, PROMPT, PROMPTS, requests_of_line
from mm_infer.verb import FORCE, paths_of

OUT = Option(
    "--out",
    "The .mp4 to write, A on the left and B on the right; with several requests, the folder for one each.",
    "PATH",
    read=Path,
)
CALIBRATE = Option(
    "--calibrate",
    "Find the steps that B's feature cache skips, and write B with them to this .json or .yaml. A is the "
    "same spec without a cache.",
    "FILE",
    read=Path,
)

USAGE = Usage(
    "mm compare A B [--prompt TEXT | --prompts FILE] [--out PATH] [--calibrate FILE] [--json]"
    " [--spec.FIELD VALUE ...]",
    "Show what a faster spec costs in exactness.",
    "Makes the same videos by two inference specs, one after the other, each as a run of its own, and prints "
    "how many times as fast B is, by its mean step and by each stage; how far its latents are from A's after "
    "each step, as a share; and PSNR and SSIM of the decoded frames. Without --prompt or --prompts both "
    "make the videos that A asks for. --out lays both videos side by side. Fields on the command line are "
    "put into B.\n\n"
    "A feature cache skips steps that are fixed beforehand. --calibrate finds them: A makes the videos "
    "exactly, each step's change of what the blocks add is measured, and steps are skipped while their "
    "changes come to no more than spec.feature_cache.threshold. B is then compared with these steps, and "
    f"FILE generates with them.\n\n{TARGET_HELP}",
    (*OPTIONS, OUT, CALIBRATE, FORCE, JSON, ACCEPT_CONTENT, RUNS_DIR, LOCATION),
    (
        (
            "mm compare experiments/tiny.py experiments/tiny.py --spec.steps 10",
            "what half of the steps cost, on the spec's own prompts",
        ),
        (
            'mm compare exact.json cached.json --prompt "a red circle moving up" --calibrate ready.json',
            "find the steps that a feature cache skips, and what they cost",
        ),
        (
            'mm compare exact.json ready.json --prompt "a blue square moving up" --seed 7 --out both.mp4',
            "another video, side by side",
        ),
        ("mm compare exact.json ready.json --prompts wanted.jsonl --json", "numbers for a program"),
    ),
    words=("A", "B"),
)


def print_comparison(line: CommandLine) -> int:
    """Makes the videos of both targets and prints how they differ."""
    problems: list[Problem] = []
    requests, said = _asked(line, problems)
    with gathering(problems):
        if set_by_torchrun("WORLD_SIZE", 1, at_least=1) > 1:
            problems.append(Problem("", "mm compare is the work of one process; start it without torchrun"))
    calibrated = line.value(CALIBRATE) if line.has(CALIBRATE) else None
    problems += _file_problems(line, calibrated)
    paths, unusable = paths_of(line, requests) if said else ((), [])
    targets = read_generations(attrs.evolve(line, problems=(*line.problems, *problems, *unusable)))
    one, other = (target.spec for target in targets)
    assert isinstance(one, InferSpec) and isinstance(other, InferSpec)
    if not said:
        requests = one.samples.requests
        paths, unusable = paths_of(line, requests)
        if unusable:
            raise UserError(unusable)
    options = RunOptions(
        runs_dir=runs_dir_of(line),
        locations=load_locations(line.values(LOCATION)),
        requests=requests,
        accept_content=line.has(ACCEPT_CONTENT),
        argv=("mm", "compare", *line.argv),
    )
    # What is said on the way is no part of the JSON.
    beside = redirect_stdout(sys.stderr) if line.has(JSON) else nullcontext()
    with beside, exported(one):
        from mm_infer.comparing.both import compare, write_pairs
        from mm_infer.comparing.page import print_compared

        first, second = line.words
        compared = compare((one, other), (first, second), (options, options), calibrated=calibrated)
        if paths:
            write_pairs(compared, paths)
    if line.has(JSON):
        files = {"side_by_side": list(map(str, paths)), "spec": calibrated and str(calibrated)}
        print_json(compared.as_json() | files)
        return 0
    print_compared(compared)
    print_lines(map(str, (*paths, *([calibrated] if calibrated else []))))
    return 0


def _asked(line: CommandLine, problems: list[Problem]) -> tuple[tuple[GenerationRequest, ...], bool]:
    """The requests of the command line, and whether it says any; A's own are taken where it says none."""
    if line.has(PROMPT) or line.has(PROMPTS):
        requests, found = requests_of_line(line)
        problems += found
        return requests, True
    message = f"has no part without {PROMPT.flag} or {PROMPTS.flag}; leave it out"
    problems += [Problem(option.flag, message) for option in OPTIONS if line.has(option)]
    return (), False


def _file_problems(line: CommandLine, file: Path | None) -> list[Problem]:
    """What is wrong with the file of a calibrated spec."""
    if file is None:
        return []
    if file.suffix not in (".json", ".yaml", ".yml"):
        message = f"expected the name of a file that ends in .json or .yaml, got {str(file)!r}"
        return [Problem(CALIBRATE.flag, message)]
    if not file.absolute().parent.is_dir():
        return [Problem(CALIBRATE.flag, f"the folder {str(file.parent)!r} does not exist")]
    if file.exists() and not line.has(FORCE):
        message = f"{str(file)!r} exists already; choose another name or add --force"
        return [Problem(CALIBRATE.flag, message)]
    return []


VERB = Verb(USAGE, print_comparison)
