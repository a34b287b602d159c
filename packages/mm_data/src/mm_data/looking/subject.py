"""What is looked at: the data of a training spec, or a folder, table or index as it lies."""

from __future__ import annotations

from pathlib import Path

import attrs

from mm_config.cli import LOCATION, CommandLine, read_targets, runs_dir_of
from mm_config.options import RunOptions, load_locations
from mm_config.schema import Problem, UserError
from mm_config.specs import DatasetSpec, DataSpec, FolderSpec, IndexSpec, TrainSpec
from mm_data.index.table import HEAD, read_head
from mm_data.plan.making import make_plan
from mm_data.plan.plan import Plan
from mm_data.plan.training import grid_of, plan_of
from mm_data.preparing import prepare
from mm_data.records import Dataset
from mm_data.transforms.grid import WAN, Grid

SPECS = (".py", ".yaml", ".yml", ".mp4")
"""What a target that is a file and names a spec ends in, or `.json`."""


@attrs.frozen
class Subject:
    """Clips, and what a training would make of them."""

    title: str
    """What a person calls them."""
    spec: DatasetSpec
    """Where they come from."""
    dataset: Dataset
    """The clips."""
    data: DataSpec | None
    """What a training makes of them; None where no training is named."""
    seed: int
    """Of that training."""
    training: TrainSpec | None = None
    """The training itself, whose network says which sizes there are and how many tokens they have."""
    options: RunOptions = attrs.field(factory=RunOptions)
    """Where runs, weights and data lie on this machine."""

    @property
    def grid(self) -> Grid:
        """The sizes of clips that there can be."""
        return grid_of(self.training) if self.training else WAN

    def plan(self) -> Plan:
        """What each step of the training takes.

        Raises:
            UserError: It would not begin with these clips.
        """
        assert self.data is not None
        if self.training is None:
            return make_plan(self.data, self.dataset, self.seed)
        training = attrs.evolve(self.training, data=self.data)
        return plan_of(training, self.dataset, self.options.cache_dir)


def subject_of(line: CommandLine) -> Subject:
    """What a command line names, made ready.

    Raises:
        UserError: There is no such thing, it is no training, or its clips can't be listed.
    """
    options = RunOptions(runs_dir=runs_dir_of(line), locations=load_locations(line.values(LOCATION)))
    path = Path(line.words[0])
    if not is_data(path):
        (spec,) = read_targets(line)
        if not isinstance(spec, TrainSpec):
            what = "reads no clips: expected a training spec, or a folder, table or index of clips"
            raise UserError(Problem(line.words[0], what))
        dataset = _prepared(spec.data.dataset, options, isolated=spec.data.isolated)
        name, data = spec.name or path.name, spec.data
        return Subject(name, data.dataset, dataset, data, spec.seed, spec, options)
    if problems := [*line.problems, *line.unknown_flags()]:
        raise UserError(problems)
    named = data_at(path)
    return Subject(path.resolve().name, named, _prepared(named, options), None, 0)


def is_data(path: Path) -> bool:
    """Whether a path is data itself, and no spec or run."""
    if path.is_dir():
        return not (path / "spec.json").is_file()
    return path.is_file() and path.suffix not in SPECS and not (path.suffix == ".json" and _is_object(path))


def _is_object(path: Path) -> bool:
    """Whether a JSON file holds an object, as saved specs do, and no list of clips."""
    try:
        with path.open("rb") as file:
            return file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    except OSError:  # Reading it as a spec says why it can't be read.
        return True


def data_at(path: Path) -> DatasetSpec:
    """The data at a path: an index, or what can be indexed."""
    if (path / HEAD).is_file():
        head = read_head(path)
        return IndexSpec(name=head.name, digest=head.digest, path=str(path))
    return FolderSpec(name=path.resolve().name, path=str(path))


def _prepared(dataset: DatasetSpec, options: RunOptions, *, isolated: bool = False) -> Dataset:
    return prepare(dataset, cache_dir=options.cache_dir, locations=options.locations, isolated=isolated)
