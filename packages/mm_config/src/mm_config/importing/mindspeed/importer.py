"""Files of MindSpeed-MM to a spec and a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from mm_config.importing.mindspeed import (
    base,
    clips,
    computing,
    generation,
    locations,
    parts,
    schedule,
    sharding,
)
from mm_config.importing.mindspeed.by_row import by_row, defaults, left_out, repeated, unknown
from mm_config.importing.mindspeed.dialects import Given, given_files
from mm_config.importing.mindspeed.disagreements import disagreements, named_files
from mm_config.importing.mindspeed.files import Files, Known
from mm_config.importing.mindspeed.keys import NATIVE
from mm_config.importing.mindspeed.network import check_network, known_of, network
from mm_config.importing.mindspeed.noise import noise_levels
from mm_config.importing.mindspeed.placing import placed
from mm_config.importing.mindspeed.table import TABLE
from mm_config.importing.mindspeed.telling import comparisons, kinds_left, launcher
from mm_config.importing.nodes import as_in_file
from mm_config.importing.parsers.shell_text import read_shell
from mm_config.importing.readings import Composed, Reading, composed
from mm_config.importing.report import Report
from mm_config.rules import problems as rule_problems
from mm_config.schema.errors import Problem, SpecError, UserError
from mm_config.schema.evolve import replace
from mm_config.schema.types import is_spec
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import ReleasedWeights

Reader: TypeAlias = Callable[[Files, Known], Iterator[Reading]]

_BOTH: tuple[Reader, ...] = (
    network,
    parts.npu,
    sharding.context_parallel,
    schedule.start,
    locations.releases,
    locations.run_folders,
)
TRAINING: tuple[Reader, ...] = (
    *_BOTH,
    parts.tools,
    parts.precomputed,
    parts.adapters_and_average,
    parts.optimizer,
    noise_levels,
    clips.order,
    clips.captions,
    clips.frames,
    clips.features,
    clips.sizes,
    sharding.units,
    sharding.adapters,
    computing.recomputation,
    computing.precision,
    schedule.learning_rate,
    schedule.batches,
    schedule.encoders,
    locations.clips,
)
GENERATION: tuple[Reader, ...] = (
    *_BOTH,
    generation.size,
    generation.guidance,
    generation.noise_table,
    generation.negative_prompt,
    generation.offload,
    generation.prompts,
    generation.seeds,
    generation.low_noise,
    generation.video,
    sharding.ranks_left,
)
"""What reads each field or group of fields; no order among them matters."""


def import_files(
    files: Iterable[Path], *, allow_unknown: bool = False
) -> tuple[TrainSpec | InferSpec, Report]:
    """The spec that MindSpeed-MM's files amount to, and what became of each of their keys.

    Args:
        files: model.json, inference_model.json, data.json, tools.json, FSDP2, LayerZero or native YAML, a
            launch script and a .txt of prompts, by any names, each kind at most once.
        allow_unknown: Whether keys that no code of MindSpeed-MM reads are only reported.

    Raises:
        UserError: Files that can't be read, a program or network that is none of Wan's, unknown keys, values
            that our specs can't say, and a result that breaks a rule: all of them, each with its file, line
            and key.
    """
    given = given_files(files, TABLE, read_shell)
    said = Files(TABLE, given.facts, given.generation, given.reached, given.prompts)
    check_network(said)
    known = known_of(said)
    readings = _readings(said, known)
    made = composed(readings)
    strange = [] if allow_unknown else list(_unknown(said))
    spec = _spec(said, known, made, strange)
    readings += disagreements(said, spec)
    told = kinds_left(given.kinds) if not said.generation and NATIVE not in given.kinds else ()
    return spec, _report(given, said, known, spec, composed([*told, *readings]))


def _readings(files: Files, known: Known) -> list[Reading]:
    read = [*repeated(files), *left_out(files)]
    over = {reading.because for reading in read}
    own = [
        reading
        for reader in (GENERATION if files.generation else TRAINING)
        for reading in reader(files, known)
        if reading.because not in over
    ]
    read += [*own, *named_files(files)]
    read += by_row(files, {reading.because for reading in read if reading.told})
    return [*defaults(files, {reading.target for reading in read}), *read]


def _unknown(files: Files) -> Iterator[Problem]:
    for fact in files.facts:
        if fact not in files.rows and fact.source.kind != "shell variable":
            text = f"{fact.path} is {as_in_file(fact.value)}: {unknown(files, fact)}; --allow-unknown goes on"
            yield Problem(fact.place, text)


def _base(files: Files, known: Known) -> TrainSpec | InferSpec:
    if not files.generation:
        return base.training(known.family, known.expert)
    if known.family.high_noise is not None:
        return base.generation(known.family)
    return base.generation(known.family, ReleasedWeights(name=schedule.WEIGHTS))


def _spec(files: Files, known: Known, made: Composed, strange: list[Problem]) -> Any:
    """The spec with all values put in, which keeps every rule."""
    problems = [*strange, *made.problems]
    values = {path: value for path, value in made.values.items() if not path.startswith("--")}
    spec: Any = _base(files, known)
    try:
        # A part before what is inside it.
        for path, value in sorted(values.items(), key=lambda item: item[0].count(".")):
            if is_spec(value):
                spec = replace(spec, {path: value})
        spec = replace(spec, {path: value for path, value in values.items() if not is_spec(value)})
        problems += list(placed(rule_problems(spec, files.world_size), files, made, problems))
    except SpecError as error:
        problems += list(placed(error.problems, files, made, problems))
    if problems:
        raise UserError(dict.fromkeys(problems))
    return spec


def _report(given: Given, files: Files, known: Known, spec: TrainSpec | InferSpec, made: Composed) -> Report:
    order = {fact.place + fact.path: number for number, fact in enumerate(files.facts)}
    last = len(order)
    entries = sorted(made.entries, key=lambda entry: order.get(entry.place + entry.key, last))
    paths = [(name, str(value)) for name, value in made.values.items() if name.startswith("--")]
    words = [word for name, value in paths if name != "--runs-dir" for word in _location(name, value)]
    runs = [word for name, value in paths if name == "--runs-dir" for word in (name, value)]
    return Report(
        family=known.name,
        entries=tuple(entries),
        comparisons=tuple(comparisons(known, spec)),
        flags=(*words, *runs),
        launcher=launcher(files),
        asks=generation.asked(files) if files.generation else (),
        ranks=files.world_size or 1,
        more={"read over": given.notes},
    )


def _location(name: str, value: str) -> tuple[str, str]:
    flag, _, logical = name.partition(" ")
    return flag, f"{logical}={value}"
