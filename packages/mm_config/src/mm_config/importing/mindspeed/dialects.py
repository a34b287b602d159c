"""The files of one run: which of MindSpeed-MM's each is, in which dialect, and what program is launched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

import attrs

from mm_config.importing.facts import Fact, Source, facts_of
from mm_config.importing.mindspeed.files import Table
from mm_config.importing.mindspeed.keys import (
    DATA,
    FSDP2,
    INFERENCE,
    LAYERZERO,
    MODEL,
    NATIVE,
    TOOLS,
    TRAINING_KINDS,
)
from mm_config.importing.nodes import Mapping, Node, Sequence
from mm_config.importing.parsers.json_text import read_json
from mm_config.importing.parsers.script import Script
from mm_config.importing.parsers.text import read_text
from mm_config.importing.parsers.yaml_text import read_yaml
from mm_config.schema.errors import Problem, UserError

_JSON = (DATA, TOOLS, MODEL)
_YAML = (FSDP2, LAYERZERO, NATIVE)
_GENERATION = {"pipeline_class", "pipeline_config", "prompt", "boundary_ratio", "low_noise_predictor"}
"""Keys of an inference file that no training has."""
_GPT_ARGS = {"gpt_args", "lora_args", "MM_TOOL_PATH", "mm_tool_path"}
_ACCELERATE = {"compute_environment", "distributed_type", "num_processes", "fsdp_config", "deepspeed_config"}
_SCRIPTS = (".sh", ".bash")
_TEXTS = (".yaml", ".yml")
_GENERATES = ("inference_sora.py",)
_TRAINS = ("pretrain_sora.py", "pretrain_custom.py", "trainer.py", "mindspeed_mm.fsdp.train.trainer")
_OTHERS = {
    "get_wan_feature.py": "extracts features and trains nothing: `cache = latents` or `mm features` does "
    "so here",
    "get_sora_feature.py": "extracts features and trains nothing: `cache = latents` or `mm features` does "
    "so here",
    "posttrain_sora_dpo.py": "trains by preferences, which is not in our specs",
}


@attrs.frozen
class Given:
    """What the files hold."""

    facts: tuple[Fact, ...]
    """All values."""
    kinds: dict[str, Path]
    """The file of each kind."""
    script: Script | None
    """The launch script, where there is one."""
    prompts: dict[str, tuple[str, ...]]
    """Lines of the prompts files, by name."""
    notes: tuple[str, ...]
    """What was read over."""

    @property
    def reached(self) -> dict[str, tuple[str, ...]]:
        """The flags that a script's variable reaches, by its name."""
        return dict(self.script.reached) if self.script else {}

    @property
    def generation(self) -> bool:
        """The script's program decides, then an inference file without a training's network."""
        if program := program_of(self.script):
            return program in _GENERATES
        return INFERENCE in self.kinds and not {MODEL, NATIVE} & set(self.kinds)


def given_files(files: Iterable[Path], table: Table, read_shell: Callable[[Path], Script]) -> Given:
    """Reads the files of one run, the launch script by `read_shell`.

    Raises:
        UserError: Files can't be read, are of no kind or two of one, or launch another program.
    """
    problems: list[Problem] = []
    facts: list[Fact] = []
    kinds: dict[str, Path] = {}
    prompts: dict[str, tuple[str, ...]] = {}
    script: Script | None = None
    for file in files:
        try:
            if file.suffix == ".txt":
                lines = read_text(file).text.split("\n")
                prompts[file.name] = tuple(line.strip() for line in lines if line.strip())
                continue
            kind, found, read = _read_one(file, table, read_shell)
        except UserError as error:
            problems += error.problems
            continue
        if kind in kinds:
            message = f"is a second {kind}, after {kinds[kind]}: import one run at a time"
            problems.append(Problem(str(file), message))
            continue
        kinds[kind] = file
        facts += found
        script = read or script
    if not kinds and not problems:
        message = "name the files of one run: model.json, data.json, a YAML, a launch script"
        problems.append(Problem("", message))
    problems = problems or [*_two_dialects(kinds), *_another_program(kinds.get("script"), script)]
    if problems:
        raise UserError(problems)
    notes = [f"{kinds['script']}:{note.line}  {note.text}" for note in script.notes] if script else ()
    return Given(tuple(facts), kinds, script, prompts, tuple(notes))


def program_of(script: Script | None) -> str:
    """The program that a script launches, without its folder."""
    return PurePosixPath(script.entry).name if script and script.entry else ""


def is_script(file: Path) -> bool:
    """Whether a file is a launch script, by its name."""
    return file.suffix in _SCRIPTS


def is_yaml(file: Path) -> bool:
    """Whether a file is YAML, by its name."""
    return file.suffix in _TEXTS


def kind_of(file: Path, node: Node, table: Table) -> str:
    """The kind of a JSON or YAML file, by its top-level keys.

    Raises:
        UserError: It is of a dialect that is not imported, which is named, or of none.
    """
    if isinstance(node.value, Sequence):
        message = (
            "is a list, of clips perhaps: no configuration; write a manifest with `path` and `caption` per "
            "line"
        )
        raise UserError(Problem(f"{file}:{node.line}", message))
    entries = node.value.entries if isinstance(node.value, Mapping) else ()
    keys = {key for key, _ in entries}
    if is_yaml(file):
        _refuse_other_dialects(file, node, keys)
    kinds = _YAML if is_yaml(file) else _JSON
    if keys & _GENERATION and not is_yaml(file):
        return INFERENCE
    best = max(kinds, key=lambda kind: len(keys & table.top_keys(kind)))
    if not keys & table.top_keys(best):
        known = ", ".join(kinds if is_yaml(file) else (*kinds, INFERENCE))
        message = f"has no key by which one of MindSpeed-MM's files is known ({known})"
        raise UserError(Problem(f"{file}:{node.line}", message))
    return best


def _read_one(
    file: Path, table: Table, read_shell: Callable[[Path], Script]
) -> tuple[str, list[Fact], Script | None]:
    if is_script(file):
        script = read_shell(file)
        facts = [*script.exports, *script.assignments, *script.launch]
        if not facts:
            raise UserError(Problem(f"{file}:1", "sets no variable and launches nothing"))
        return "script", facts, script
    if not is_yaml(file) and file.suffix != ".json":
        raise UserError(Problem(str(file), "is neither .json, .yaml, .yml, .sh nor a .txt of prompts"))
    node = read_yaml(file) if is_yaml(file) else read_json(file)
    kind = kind_of(file, node, table)
    return kind, list(facts_of(node, Source(file, kind))), None


def _two_dialects(kinds: dict[str, Path]) -> Iterator[Problem]:
    """A native YAML holds network, clips and sharding of a run: other files of these are another run's."""
    if NATIVE not in kinds:
        return
    for kind in (*TRAINING_KINDS, INFERENCE):
        if kind in kinds and kind != NATIVE:
            message = f"is a {kind}, but {kinds[NATIVE]} holds all of its run: import one run at a time"
            yield Problem(str(kinds[kind]), message)


def _another_program(file: Path | None, script: Script | None) -> Iterator[Problem]:
    program = program_of(script)
    if not program or program in (*_TRAINS, *_GENERATES) or script is None:
        return
    why = _OTHERS.get(program, f"is no program of Wan's: {_TRAINS[0]} trains and {_GENERATES[0]} generates")
    yield Problem(f"{file}:{script.line}", f"{program} {why}")


def _refuse_other_dialects(file: Path, node: Node, keys: set[str]) -> None:
    for found, name in (
        (_GPT_ARGS, "the gpt_args dialect, which MindSpeed-MM flattens into flags for language models"),
        (_ACCELERATE, "an accelerate configuration, which MindSpeed-MM's diffusers examples use"),
    ):
        if keys & found:
            key = min(keys & found)
            raise UserError(Problem(f"{file}:{node.line}", f"{key}: is {name}; it is not imported"))
