"""`mm inspect`: what some weights are, and whether they are a spec's."""

from __future__ import annotations

from pathlib import Path

from mm_config.cli import JSON, RUNS_DIR, CommandLine, Usage, Verb
from mm_config.console import print_json, print_lines
from mm_config.schema import Problem, UserError
from mm_models.verbs.words import PART, SPEC, spec_of

DIFFERS = 1
"""Exit status where weights do not fit."""
USAGE = Usage(
    "mm inspect PATH [--part PREFIX] [--spec TARGET] [--json] [--runs-dir DIR]",
    "Say what weights are: kind, architecture, dtypes, digest, and what differs from a spec.",
    "Says what weights of Wan's transformer, text encoder or autoencoders are: their kind, the architecture "
    "that their shapes tell and the known family that has it, dtypes, parameters, and a digest of all values "
    "that is equal for equal weights of every kind. With a spec it names what is missing, not wanted or of "
    "another shape, and what probably happened.\n\n"
    "Of a LoRA adapter (safetensors of diffusers, PEFT, kohya's tools or tools around the original code, or "
    "the checkpoint of a training) it says key style, expert, rank, alpha, layers, and the networks that it "
    "fits.\n\n"
    "Exit status: 0 where the weights fit, 1 where they do not, 2 where they can't be read.",
    (PART, SPEC, JSON, RUNS_DIR),
    (
        ("mm inspect Wan2.1-T2V-1.3B", "what a download is"),
        ("mm inspect weights --spec experiments/wan22_high.py", "is it what an experiment starts from"),
        ("mm inspect RUN/checkpoints/step-00000450 --json", "a training's checkpoint, as JSON"),
        ("mm inspect lora.safetensors", "what an adapter changes, and of which networks"),
    ),
    words=("PATH",),
    takes="files",
)


def describe_weights(line: CommandLine) -> int:
    """Prints what the weights are."""
    (path,) = line.words
    spec = spec_of(line)

    from mm_models.lora.describing import inspect_adapters
    from mm_models.lora.files import holds_adapter
    from mm_models.weights.inspecting import inspect_weights
    from mm_models.weights.published import published_model

    named = line.value(SPEC)
    if holds_adapter(Path(path)):
        if line.has(PART):
            raise UserError(Problem(PART.flag, "is for networks; an adapter is inspected whole"))
        model = None if spec is None else published_model(spec, named)
        found = inspect_adapters(Path(path), model, named)
    else:
        found = inspect_weights(Path(path), spec, named, part=line.value(PART))
    if line.has(JSON):
        print_json(found.to_json())
    else:
        print_lines(found.lines())
    return DIFFERS if found.differences else 0


VERB = Verb(USAGE, describe_weights)
