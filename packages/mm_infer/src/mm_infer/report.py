"""What a person reads at the end of a run: where everything lies, how good it is, what to try next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mm_config.console import say, table
from mm_config.identity import spec_hash
from mm_config.options import RunOptions
from mm_config.specs.infer import InferSpec


def print_report(spec: InferSpec, options: RunOptions, run_dir: Path, result: Mapping[str, Any]) -> None:
    """Prints the run folders, the score, the files to open and the next commands.

    Args:
        spec: What was run.
        options: How it was run.
        run_dir: This run's folder.
        result: The content of its `result.json`.
    """
    trainings = {name: one for name, one in result["experts"].items() if "run_dir" in one}
    rows = [
        (f"training, {name}", one["spec_hash"][:12], near(one["run_dir"])) for name, one in trainings.items()
    ]
    table(
        "Runs", [*rows, ("videos", result["spec_hash"][:12], near(run_dir))], ("", "spec hash", "run folder")
    )
    if score := result["score"]:
        count = len(result["videos"])
        measured = [
            (name, f"{share:.1%}", f"{round(share * count)} of {count}") for name, share in score.items()
        ]
        table("Score", measured, ("", "right", "videos"))
    sheet, first = result["contact_sheet"], result["videos"][0]["path"]
    table("Files", [("contact sheet", near(sheet)), ("videos", f"{near(Path(first).parent)}/")])
    say(f"{result['seconds']:.0f} s in all, peak memory {result['peak_gib']:.2f} GiB")
    say("Next, for example:")
    for command in next_commands(spec, options, trainings):
        say(f"  {command}")


def next_commands(
    spec: InferSpec, options: RunOptions, trainings: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    """Commands that a person may try after a run, with this run's own hashes and files."""
    mm, python = _program("mm"), _program("python")
    script = Path(options.argv[0]) if options.argv else Path()
    is_script = script.suffix == ".py"
    target = near(script) if is_script else spec_hash(spec)[:12]
    elsewhere = "" if options.runs_dir == RunOptions().runs_dir else f" --runs-dir {near(options.runs_dir)}"
    prompt = shlex.quote(spec.samples.prompts[-1])
    yield f"{mm} generate {target} --prompt {prompt} --seed 7 --out video.mp4{elsewhere}"
    hashes = [one["spec_hash"][:12] for one in trainings.values()]
    if len(hashes) == 2:
        yield f"{mm} diff {' '.join(hashes)}{elsewhere}"
    if is_script:
        yield f"{python} {target} --spec.steps {spec.sampler.steps * 2}{elsewhere}"
    for training in trainings.values():
        experiment = script.parent / f"{Path(training['run_dir']).parent.name}.py"
        if is_script and experiment.is_file():
            yield f"{python} {near(experiment)} --spec.lr 1e-3{elsewhere}"
            return


def _program(name: str) -> str:
    """A program beside this interpreter as it is typed here: its name where that finds it, else its path."""
    beside = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(beside) else near(beside)


def near(path: Path | str) -> str:
    """A path as it is typed from the current folder where it lies below it, else absolute."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)
