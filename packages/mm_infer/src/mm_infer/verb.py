"""`mm generate`: videos from prompts on the command line. torch is imported once the words are in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

import attrs

from mm_config.cli import (
    ACCEPT_CONTENT,
    LIKE,
    LOCATION,
    RUNS_DIR,
    CommandLine,
    Option,
    Usage,
    Verb,
    find,
    read_generations,
    read_targets,
    runs_dir_of,
    threads_like,
)
from mm_config.console import is_main_rank, print_lines, say, set_by_torchrun, typed_path
from mm_config.npu import exported
from mm_config.options import RunOptions, load_locations
from mm_config.rules import counted
from mm_config.running import on_threads
from mm_config.schema import Problem, UserError, gathering
from mm_config.specs import GenerationRequest, InferSpec
from mm_infer.asking import OPTIONS, PROMPTS, asked_in_file, requests_of_line
from mm_infer.jobs.items import FAILED
from mm_infer.naming import file_names

OUT = Option(
    "--out",
    "The .mp4 to write; with several prompts, the folder for one .mp4 each.",
    "PATH",
    read=Path,
    missing="name the .mp4 to write",
)
DECODE = Option(
    "--decode",
    "In place of prompts, the latents that a run has kept: their video is decoded. The target is the run's, "
    "where none is named.",
    "LATENTS",
    read=Path,
)
KEEP_GOING = Option(
    "--keep-going",
    "Make what can be made of --prompts; the lines that can't be read or made are recorded.",
)
FORCE = Option("--force", "Overwrite files that exist.")

USAGE = Usage(
    "mm generate TARGET --prompt TEXT [--image FILE] | --prompts FILE | --decode LATENTS --out PATH "
    "[--spec.FIELD VALUE ...]",
    "Make videos from prompts.",
    "Makes a video of each prompt, with the model, the sampler and the size of an inference spec, and writes "
    "it as mp4. With --image it begins with an image, and takes its aspect ratio at the spec's area; with "
    "--spec.image-fit crop the image is cut to the spec's size. A run folder keeps the spec, the requests "
    "and where all came from; the file's comment tag names it, so that mm show, mm diff and mm reproduce "
    "take the file wherever it lies. The same prompt, seed, image and spec give the same video, alone or "
    "beside others. Weights that a training makes are found by that training's hash; --spec.build-missing "
    "trains them first where no finished run has made them.\n\n"
    "The run folder keeps the latents of each video, written before they are decoded. --decode makes the "
    "video of such a file, on another device or with tiles where memory was too small.\n\n"
    "A target is an experiment file, a saved spec, a run folder, a video that a run made, a module, a run id "
    "or a hash prefix of at least 6 digits. A training makes videos as it makes its own samples, with the "
    "weights of its finished run.",
    (*OPTIONS, KEEP_GOING, DECODE, OUT, FORCE, LIKE, ACCEPT_CONTENT, RUNS_DIR, LOCATION),
    (
        (
            'mm generate experiments/tiny.py --prompt "a red circle moving right" --out circle.mp4',
            "one video",
        ),
        (
            'mm generate 7f3a91c2 --prompt "a blue square moving up" --seed 7 --spec.steps 40 --out fine.mp4',
            "with a stored run's spec, another seed and more denoising steps",
        ),
        (
            'mm generate experiments/wan22_i2v.py --image harbour.jpg --prompt "boats leave" --out boats.mp4',
            "a video that begins with an image",
        ),
        (
            "mm generate experiments/tiny.py --out shapes"
            ' --prompt "a red circle moving up" --prompt "a red square moving up"',
            "two videos, into a folder",
        ),
        (
            "mm generate experiments/wan22_i2v.py --prompts wanted.jsonl --out made",
            "a folder for each line of a file; again, and what is there is not made twice",
        ),
        (
            "mm generate --decode runs/wan/20260102-1a2b3c4d5e6f-1/latents/boats-leave-0.safetensors"
            " --out boats.mp4 --spec.autoencoder.tiling True",
            "the video of latents that a run could not decode",
        ),
    ),
    words=("[TARGET]",),
)


def make_files(line: CommandLine) -> int:
    """Writes a video for each prompt, or that of denoised latents."""
    if line.has(DECODE):
        return _decode(line)
    if line.has(PROMPTS):
        return _make_job(line)
    spec, beside, unread = None, (), list[Problem]()
    world_size = _world_size(unread)
    with gathering(unread):
        (target,) = read_generations(attrs.evolve(line, problems=()), world_size)
        spec, beside = target.spec, target.requests
    if unread and line.words:
        # What a target asks for is known also where its spec can't be carried out here.
        with suppress(UserError):
            beside = find(line.words[0], RunOptions(runs_dir=runs_dir_of(line))).requests
    requests, problems = requests_of_line(line, beside)
    if line.has(KEEP_GOING):
        problems.append(Problem(KEEP_GOING.flag, f"has no part without {PROMPTS.flag}; leave it out"))
    paths, unusable = paths_of(line, requests)
    if problems := [*line.problems, *problems, *unusable, *unread]:
        raise UserError(problems)
    assert isinstance(spec, InferSpec)
    options = _options(line, requests)
    with exported(spec), on_threads(options.threads):
        from mm_infer.runner import make

        with on_threads(options.threads):
            run_dir = make(spec, options, paths).run_dir
    say(f"run folder {typed_path(run_dir)}")
    print_lines(map(str, paths) if is_main_rank() else ())
    return 0


def _make_job(line: CommandLine) -> int:
    """Makes the videos of a file that are not in the folder yet, each in a folder of its own."""
    asked, problems = asked_in_file(line)
    problems += job_problems(line)
    world_size = _world_size(problems)
    (target,) = read_generations(attrs.evolve(line, problems=(*line.problems, *problems)), world_size)
    spec = target.spec
    assert isinstance(spec, InferSpec)
    options = _options(line, ())
    with exported(spec), on_threads(options.threads):
        from mm_infer.jobs.job import run_job

        with on_threads(options.threads):
            outcome = run_job(spec, options, asked, line.value(OUT), line.has(KEEP_GOING))
    print_lines(map(str, outcome.folders) if is_main_rank() else ())
    if outcome.failed and is_main_rank():
        say(f"{counted(outcome.failed, 'video')} could not be made; {line.value(OUT) / FAILED} says why")
    return 1 if outcome.failed else 0


def job_problems(line: CommandLine) -> list[Problem]:
    """What is wrong with the folder of a job, and with options that have no part in it."""
    message = "has no part in --prompts: finished items stay as they are, in folders of their own"
    problems = [Problem(FORCE.flag, message)] if line.has(FORCE) else []
    if not line.has(OUT):
        return problems
    out = line.value(OUT)
    if out.suffix == ".mp4" or out.is_file():
        expected = "--prompts needs a folder, got the file name"
        return [*problems, Problem(OUT.flag, f"{expected} {str(out)!r}")]
    return [*problems, *_place_problems(out)]


def _decode(line: CommandLine) -> int:
    """Writes the video of latents, decoded as the target's spec says."""
    latents = line.value(DECODE)
    idle = [
        Problem(one.flag, f"has no part in {DECODE.flag}; leave it out") for one in OPTIONS if line.has(one)
    ]
    if _world_size(idle) > 1:
        idle.append(Problem(DECODE.flag, "is the work of one process; start it without torchrun"))
    marked = find(str(latents), RunOptions(runs_dir=runs_dir_of(line)))
    paths, unusable = paths_of(line, marked.requests)
    line = attrs.evolve(
        line, words=line.words or (str(latents),), problems=(*line.problems, *idle, *unusable)
    )
    (spec,) = read_targets(line)
    if not isinstance(spec, InferSpec) or not isinstance(marked.spec, InferSpec) or not marked.requests:
        raise UserError(Problem(str(latents), "are no latents of a generation"))
    options = _options(line, marked.requests)
    with exported(spec), on_threads(options.threads):
        from mm_infer.redecoding import decode_file

        with on_threads(options.threads):
            run_dir = decode_file(latents, marked.requests[0], marked.spec, spec, options, paths[0])
    say(f"run folder {typed_path(run_dir)}")
    print_lines(map(str, paths))
    return 0


def _world_size(problems: list[Problem]) -> int:
    """The processes that torchrun started; variables that are no numbers are added to the problems."""
    with gathering(problems):
        set_by_torchrun("RANK", 0)
        return set_by_torchrun("WORLD_SIZE", 1, at_least=1)
    return 1


def _options(line: CommandLine, requests: Sequence[GenerationRequest]) -> RunOptions:
    return RunOptions(
        runs_dir=runs_dir_of(line),
        locations=load_locations(line.values(LOCATION)),
        requests=tuple(requests),
        accept_content=line.has(ACCEPT_CONTENT),
        threads=threads_like(line),
        argv=("mm", "generate", *line.argv),
    )


def paths_of(
    line: CommandLine, requests: Sequence[GenerationRequest]
) -> tuple[tuple[Path, ...], list[Problem]]:
    """The file of each request, `--out` itself or inside of it, and what is wrong with that."""
    if not line.has(OUT):
        return (), []
    out, several = line.value(OUT), len(requests) > 1
    if several and (out.suffix == ".mp4" or out.is_file()):
        return (), [Problem(OUT.flag, f"several prompts need a folder, got the file name {str(out)!r}")]
    if not several and (out.suffix != ".mp4" or out.is_dir()):
        return (), [Problem(OUT.flag, f"expected the name of a file that ends in .mp4, got {str(out)!r}")]
    if problems := list(_place_problems(out)):
        return (), problems
    paths = tuple(out / name for name in file_names(requests)) if several else (out,)
    existing = [path for path in paths if path.exists()] if not line.has(FORCE) else []
    advice = "choose another name or add --force"
    return paths, [Problem(OUT.flag, f"{str(path)!r} exists already; {advice}") for path in existing]


def _place_problems(out: Path) -> Iterator[Problem]:
    """Why nothing can be written at a place, or into the folder that it is."""
    place = out if out.is_dir() else out.absolute().parent
    if not place.is_dir():
        yield Problem(OUT.flag, f"the folder {str(out.parent)!r} does not exist")
    elif reason := _unwritable(place):
        yield Problem(OUT.flag, f"nothing can be written into {str(place)!r}: {reason}")


def _unwritable(folder: Path) -> str | None:
    """Why a folder takes no files, found by making one: rights alone don't tell of read-only file systems."""
    try:
        TemporaryFile(dir=folder).close()
    except OSError as error:
        return error.strerror
    return None


def _word_problems(line: CommandLine) -> Iterator[Problem]:
    if not line.words and not line.has(DECODE):
        order = "; targets come before --spec flags" if line.fields else ""
        yield Problem("", f"expected TARGET, got none{order} (usage: {USAGE.line})")


VERB = Verb(USAGE, make_files, _word_problems)
