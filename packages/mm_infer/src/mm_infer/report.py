"""What a person reads at the end of a run: where everything lies, how good it is, what to try next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mm_config.console import say, shell_command, table, typed_path
from mm_config.options import RunOptions
from mm_config.schema import spec_hash
from mm_config.specs import InferSpec


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
        (f"training, {name}", one["spec_hash"][:12], typed_path(one["run_dir"]))
        for name, one in trainings.items()
    ]
    table(
        "Runs",
        [*rows, ("videos", result["spec_hash"][:12], typed_path(run_dir))],
        ("", "spec hash", "run folder"),
    )
    if score := result["score"]:
        count = len(result["videos"])
        measured = [
            (name, f"{share:.1%}", f"{round(share * count)} of {count}") for name, share in score.items()
        ]
        table("Score", measured, ("", "right", "videos"))
    sheet, first = result["contact_sheet"], result["videos"][0]["path"]
    table("Files", [("contact sheet", typed_path(sheet)), ("videos", f"{typed_path(Path(first).parent)}/")])
    say(f"{result['seconds']:.0f} s in all, peak memory {result['peak_gib']:.2f} GiB")
    say("Next, for example:")
    for line in next_commands(spec, options, trainings):
        say(f"  {line}")


def next_commands(
    spec: InferSpec, options: RunOptions, trainings: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    """Commands that a person may try after a run, with this run's own hashes and files."""
    script = Path(options.argv[0]) if options.argv else Path()
    is_script = script.suffix == ".py"
    target = typed_path(script) if is_script else spec_hash(spec)[:12]
    request = ("--prompt", spec.samples.prompts[-1], "--seed", "7", "--out", "video.mp4")
    yield shell_command(options, "mm", "generate", target, *request)
    hashes = [one["spec_hash"][:12] for one in trainings.values()]
    if len(hashes) == 2:
        yield shell_command(options, "mm", "diff", *hashes)
    if is_script:
        yield shell_command(options, "python", target, "--spec.steps", str(spec.sampler.steps * 2))
    for training in trainings.values():
        experiment = script.parent / f"{Path(training['run_dir']).parent.name}.py"
        if is_script and experiment.is_file():
            yield shell_command(options, "python", typed_path(experiment), "--spec.lr", "1e-3")
            return
