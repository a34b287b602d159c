"""Files of MindSpeed-MM to a spec and a report."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

from mm_config.importing.facts import Fact, Source, facts_of
from mm_config.importing.mindspeed import base
from mm_config.importing.mindspeed.assemble import generation, training
from mm_config.importing.mindspeed.book import Book
from mm_config.importing.mindspeed.dialects import is_script, is_yaml, kind_of
from mm_config.importing.mindspeed.network import EXPERIMENTS, FAMILIES
from mm_config.importing.mindspeed.rows import FLAG
from mm_config.importing.mindspeed.schedule import world_size
from mm_config.importing.mindspeed.table import TABLE
from mm_config.importing.nodes import as_in_file
from mm_config.importing.parsers.json_text import read_json
from mm_config.importing.parsers.script import Script
from mm_config.importing.parsers.shell_text import read_shell
from mm_config.importing.parsers.yaml_text import read_yaml
from mm_config.importing.report import Comparison, Entry, Report
from mm_config.importing.verdict import Verdict
from mm_config.schema.diff import diff
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.root import RootSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec

_INFERENCE, _NATIVE = "inference_model.json", "native.yaml"
_TRAINING_KINDS = ("model.json", "data.json", "fsdp2.yaml", "layerzero.yaml", "tools.json", "native.yaml")
_SUFFIXES = {Expert.HIGH_NOISE: "_high", Expert.LOW_NOISE: "_low", Expert.SINGLE: ""}


@attrs.frozen
class _Given:
    """What the files hold."""

    facts: tuple[Fact, ...]
    """All values."""
    kinds: dict[str, Path]
    """The file of each kind."""
    script: Script | None
    """The launch script, where there is one."""
    notes: tuple[str, ...]
    """What was read over."""

    @property
    def entry(self) -> str | None:
        """The program that the script launches."""
        return self.script.entry if self.script else None


def import_files(
    files: Iterable[Path], *, allow_unknown: bool = False
) -> tuple[TrainSpec | InferSpec, Report]:
    """The spec that MindSpeed-MM's files amount to, and what became of each of their keys.

    Args:
        files: model.json, inference_model.json, data.json, tools.json, FSDP2, LayerZero or native YAML and a
            launch script, by any names, each kind at most once.
        allow_unknown: Whether keys that no code of MindSpeed-MM reads are only reported.

    Raises:
        UserError: Files that can't be read, unknown keys, values that our specs can't say, and a result that
            breaks a rule: all of them, each with its file, line and key.
    """
    given = _read(files)
    book = Book(TABLE, given.facts, _is_generation(given), given.script.reached if given.script else {})
    _leave_out(book)
    unknown = [] if allow_unknown else list(_unknown(book))
    try:
        name, spec = generation(book) if book.generation else training(book)
    except UserError as error:
        raise UserError([*unknown, *error.problems]) from None
    if unknown:
        raise UserError(unknown)
    return spec, _report(book, given, name, spec)


def _read(files: Iterable[Path]) -> _Given:
    problems: list[Problem] = []
    facts: list[Fact] = []
    kinds: dict[str, Path] = {}
    notes: list[str] = []
    script: Script | None = None
    for file in files:
        try:
            kind, found, read = _read_one(file)
        except UserError as error:
            problems += error.problems
            continue
        if kind in kinds:
            problems.append(
                Problem(str(file), f"is a second {kind}, after {kinds[kind]}: import one run at a time")
            )
            continue
        kinds[kind] = file
        facts += found
        if read is not None:
            script = read
            notes += [f"{file}:{note.line}  {note.text}" for note in read.notes]
    if not kinds and not problems:
        problems.append(
            Problem("", "name the files of one run: model.json, data.json, a YAML, a launch script")
        )
    if problems or (problems := list(_two_dialects(kinds))):
        raise UserError(problems)
    return _Given(tuple(facts), kinds, script, tuple(notes))


def _two_dialects(kinds: dict[str, Path]) -> Iterator[Problem]:
    """A native YAML holds network, clips and sharding of a run: other files of these are another run's."""
    if _NATIVE not in kinds:
        return
    for kind in (*_TRAINING_KINDS, _INFERENCE):
        if kind in kinds and kind != _NATIVE:
            message = f"is a {kind}, but {kinds[_NATIVE]} holds all of its run: import one run at a time"
            yield Problem(str(kinds[kind]), message)


def _read_one(file: Path) -> tuple[str, list[Fact], Script | None]:
    if is_script(file):
        script = read_shell(file)
        facts = [*script.exports, *script.assignments, *script.launch]
        if not facts:
            raise UserError(Problem(f"{file}:1", "sets no variable and launches nothing"))
        return "script", facts, script
    if not is_yaml(file) and file.suffix != ".json":
        raise UserError(Problem(str(file), "is neither .json, .yaml, .yml nor .sh"))
    node = read_yaml(file) if is_yaml(file) else read_json(file)
    kind = kind_of(file, node)
    return kind, list(facts_of(node, Source(file, kind))), None


def _is_generation(given: _Given) -> bool:
    """An inference script decides, then an inference file without any of training's."""
    if given.entry is not None and _INFERENCE in given.kinds:
        return given.entry.startswith("inference")
    if given.entry is not None and not any(kind in given.kinds for kind in _TRAINING_KINDS):
        return given.entry.startswith("inference")
    return _INFERENCE in given.kinds and not any(kind in given.kinds for kind in ("model.json", _NATIVE))


def _leave_out(book: Book) -> None:
    """Files of generation say nothing of a training, and the other way round."""
    for fact in book.facts:
        kind = fact.source.kind
        if book.generation and kind in _TRAINING_KINDS:
            book.mark(fact, Verdict.OUTSIDE, "is about training; this import is of generation")
        elif not book.generation and kind == _INFERENCE:
            book.mark(
                fact, Verdict.OUTSIDE, "is about generation: import this file without those of training"
            )


def _unknown(book: Book) -> Iterator[Problem]:
    for fact in book.facts:
        if book.row(fact) is None and fact.source.kind != "shell variable":
            entry = book.unknown(fact)
            yield Problem(
                fact.place, f"{fact.path} is {as_in_file(fact.value)}: {entry}; --allow-unknown goes on"
            )


def _report(book: Book, given: _Given, name: str, spec: Any) -> Report:
    entries = [book.entries[number] for number in range(len(book.facts)) if number in book.entries]
    places = [(key, path) for key, path in book.paths.items() if not key.startswith("--")]
    flags = [word for key, path in places for word in ("--location", f"{key}={path}")]
    runs = book.paths.get("--runs-dir")
    return Report(
        family=name,
        entries=(*entries, *_kinds_left(given, book), *book.further),
        comparisons=tuple(_comparisons(name, spec)),
        flags=(*flags, *(("--runs-dir", runs) if runs else ())),
        launcher=_launcher(book),
        more={"read over": given.notes},
    )


def _kinds_left(given: _Given, book: Book) -> Iterator[Entry]:
    """Where values come from that no file tells."""
    source = "the family's and experiments/wan22_high.py's values hold"
    absent = {"script": "no launch script", "model.json": "no model.json", "data.json": "no data.json"}
    if book.generation or _NATIVE in given.kinds:
        return
    for kind, text in absent.items():
        if kind not in given.kinds:
            yield Entry(Verdict.DEFAULT, f"{text}: {source}", key=kind.replace("script", "launch script"))


def _comparisons(name: str, spec: Any) -> Iterator[Comparison]:
    """From the official family, and from our experiment where the experiments can be imported."""
    if not name:
        return
    family = FAMILIES[name]
    if isinstance(spec, InferSpec):
        yield Comparison(f"the official {name}", diff(base.generation(family), spec))
    else:
        expert = spec.expert if family.boundary is not None else Expert.SINGLE
        yield Comparison(
            f"the official {name}, trained as wan22_high", diff(base.training(family, expert), spec)
        )
    experiment = _experiment(name, spec)
    found = _spec_of(experiment)
    if found is not None:
        yield Comparison(f"experiments/{experiment}.py", diff(found, spec))


def _experiment(name: str, spec: Any) -> str:
    stem = EXPERIMENTS[name]
    if isinstance(spec, TrainSpec):
        return stem + _SUFFIXES[spec.expert]
    return {"wan22": "wan22_t2v", "wan22_i2v": "wan22_i2v"}.get(stem, f"{stem}_infer")


def _spec_of(experiment: str) -> Any:
    """The spec of an experiment of this project; None where it is not installed, or broken by its owner."""
    try:
        found = getattr(importlib.import_module(f"experiments.{experiment}"), "SPEC", None)
    except (ImportError, SyntaxError, UserError):
        return None
    return found if isinstance(found, RootSpec) else None


def _launcher(book: Book) -> tuple[str, ...]:
    ranks = world_size(book)
    if ranks is None or ranks == 1:
        return ("python",)
    words = ["torchrun"]
    nodes = book.raw(FLAG, "--nnodes", 1)
    words += ["--nproc-per-node", str(book.raw(FLAG, "--nproc_per_node")), "--nnodes", str(nodes)]
    if nodes > 1:
        for flag in ("--node_rank", "--master_addr", "--master_port"):
            value = book.raw(FLAG, flag)
            if value is not None:
                words += [flag.replace("_", "-"), str(value)]
    return tuple(words)
