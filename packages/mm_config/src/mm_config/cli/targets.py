"""What a verb is about: an experiment, a saved spec, a run, a video that a run made, or a hash prefix."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import attrs

from mm_config.cli.scan import RUNS_DIR, CommandLine
from mm_config.console.output import aside
from mm_config.durable.reading import require_regular
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.evolve import replace
from mm_config.schema.root import RootSpec
from mm_config.schema.suggestions import did_you_mean
from mm_config.schema.types import is_spec
from mm_config.specs.requests import GenerationRequest

if TYPE_CHECKING:
    from mm_config.runs.folder import Run
    from mm_config.runs.marks import Mark

TARGET_HELP = (
    "A target is an experiment file, a saved spec, a run folder, a video that a run made, a module, a run id "
    "or a hash prefix of at least 6 digits. Fields are given as to the experiment itself; its --help lists "
    "them."
)


@attrs.frozen
class Target:
    """What a word of a command line names."""

    spec: RootSpec
    """The spec."""
    requests: tuple[GenerationRequest, ...] = ()
    """What stands beside the spec: a video's request, a file's, or a run's that made others than its own."""
    mark: Mark | None = None
    """What a video says of itself."""
    run_dir: Path | None = None
    """The folder of the run that is named, or that made the video or was made of the same."""

    @property
    def named_requests(self) -> list[tuple[str, GenerationRequest]]:
        """The requests, each by the first segment of its paths: `request`, or `requests.0` of several."""
        several = len(self.requests) > 1
        return [
            (f"requests.{index}" if several else "request", one) for index, one in enumerate(self.requests)
        ]


def resolve(target: str, options: RunOptions) -> RootSpec:
    """The spec of what a target names, see `find`."""
    return find(target, options).spec


def find(target: str, options: RunOptions) -> Target:
    """What a target names.

    Tried in this order: an existing path (an experiment's `.py`, a saved spec's `.json` or `.yaml`, a
    run folder, a video's `.mp4` or its latents), a module (`experiments.tiny_high`), a run id, a prefix of a
    spec_hash or exact_hash of at least 6 hex digits.

    Raises:
        UserError: Nothing has this name (with the nearest names), several runs of different specs
            match (listing them), or what was found holds no valid spec.
    """
    path = Path(target)
    if path.exists():
        return _from_path(path, options)
    if _is_module(target):
        return Target(_from_module(target))
    return _from_index(target, options)


def find_run(target: str, runs_dir: Path, or_equal: bool = False) -> Run:
    """The run that a folder, a run id, a video or the beginning of a hash names.

    Of several equal runs it is the newest finished one that made the videos of its spec.

    Args:
        target: What names it.
        runs_dir: Where it is looked up.
        or_equal: Whether of a video whose run is gone another run is taken that was made of the same.

    Raises:
        UserError: There is none, or runs of different specs match; all of them are named.
    """
    from mm_config.runs.folder import attach
    from mm_config.runs.index import open_index
    from mm_config.runs.lookup import runs_named, why_none
    from mm_config.runs.marks import SUFFIX
    from mm_config.runs.record import RunStatus
    from mm_config.runs.videos import trace

    path = Path(target)
    if path.suffix == SUFFIX and path.is_file():
        found = trace(path, runs_dir)
        if found.missing and not (or_equal and found.is_equal):
            raise UserError(Problem(target, f"can't be made again: {found.missing}"))
        if found.missing:
            aside(f"{target}: {found.missing}")
        return found.run
    if path.exists():
        return attach(path)
    index = open_index(runs_dir)
    if not (runs := runs_named(index, target)):
        nothing = f"no run in {runs_dir} has this id or hash, and there is no such folder"
        raise UserError(Problem(target, why_none(index, target) or nothing))
    finished = [record for record in runs if record.status is RunStatus.FINISHED] or list(runs)
    newest = next((record for record in finished if record.requests_hash is None), finished[0])
    if len(runs) > 1:
        aside(f"{len(runs)} runs match {target}; taking {newest.path}")
    return attach(index.folder(newest))


def runs_dir_of(line: CommandLine) -> Path:
    """Where a verb looks up runs."""
    return Path(line.value(RUNS_DIR) or "runs")


def _from_path(path: Path, options: RunOptions) -> Target:
    from mm_config.runs.marks import MARKED

    if path.is_dir():
        if not (path / "spec.json").is_file():
            raise UserError(Problem(str(path), "is a folder without spec.json, so it is no run folder"))
        return _of_run(path)
    try:
        require_regular(path)
    except OSError as error:
        raise UserError(Problem(str(path), f"can't be read: {error.strerror}")) from error
    if path.suffix == ".py":
        return Target(_from_file(path))
    if path.suffix in (".json", ".yaml", ".yml"):
        return _loaded(path)
    if path.suffix in MARKED:
        return _of_video(path, options)
    expected = (
        "expected an experiment (.py), a saved spec (.json, .yaml), a video (.mp4), its latents "
        "(.safetensors) or a run folder"
    )
    raise UserError(Problem(str(path), expected))


def _of_run(folder: Path) -> Target:
    from mm_config.runs.folder import attach
    from mm_config.runs.record import SPEC_FILE, STATUS_FILE
    from mm_config.runs.requests import stored_requests

    # A copy of the spec alone has no record that it could contradict.
    if not (folder / STATUS_FILE).is_file():
        return _loaded(folder / SPEC_FILE)
    run = attach(folder)
    requests = stored_requests(folder, run.record) or ()
    return Target(_root(run.spec, str(folder)), requests, run_dir=folder)


def _of_video(path: Path, options: RunOptions) -> Target:
    from mm_config.runs.videos import trace

    found = trace(path, options.runs_dir)
    if found.missing:
        aside(f"{path}: {found.missing}")
    run_dir = found.run.path if found.is_equal else None
    return Target(found.run.spec, (found.mark.request,), found.mark, run_dir)


def _loaded(path: Path) -> Target:
    from mm_config.stored import load_with_requests

    spec, requests = load_with_requests(path)
    return Target(_root(spec, str(path)), requests)


def _from_file(path: Path) -> RootSpec:
    """Imports an experiment under its module name where it is one, so that it exists once."""
    if any(Path(folder).resolve() == path.resolve().parent for folder in _experiment_folders()):
        return _from_module(f"experiments.{path.stem}", str(path))
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        _import(str(path), partial(found.loader.exec_module, module))
    finally:
        del sys.path[0]
    return _spec_of(module, str(path))


def _experiment_folders() -> list[str]:
    package = importlib.util.find_spec("experiments")
    return list(package.submodule_search_locations or ()) if package else []


def _is_module(target: str) -> bool:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", target):
        return False
    try:
        return importlib.util.find_spec(target) is not None
    except (ModuleNotFoundError, ValueError):  # find_spec refuses `__main__` by a ValueError.
        return False


def _from_module(name: str, where: str | None = None) -> RootSpec:
    where = where or name
    _import(where, partial(importlib.import_module, name))
    return _spec_of(sys.modules[name], where)


def _import(where: str, load: Callable[[], object]) -> None:
    try:
        load()
    except UserError as error:
        raise UserError(Problem(where, str(problem)) for problem in error.problems) from error
    except SystemExit as error:
        why = (
            f'ends the process (SystemExit: {error}); `main(SPEC)` stands under `if __name__ == "__main__":`'
        )
        raise UserError(Problem(where, why)) from error
    except SyntaxError as error:  # It names its line itself.
        raise UserError(Problem(where, f"{type(error).__name__}: {error}")) from error
    except Exception as error:  # An experiment is the user's code: whatever it raises becomes one line.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
        raise UserError(Problem(where, message)) from error


def _spec_of(module: ModuleType, where: str) -> RootSpec:
    if not hasattr(module, "SPEC"):
        raise UserError(Problem(where, "defines no SPEC"))
    return named(_root(module.SPEC, f"{where}: SPEC"), module.__name__.rpartition(".")[2])


def named(spec: RootSpec, stem: str) -> RootSpec:
    """A spec labelled by its experiment's stem where it has no label of its own."""
    return spec if spec.name else replace(spec, "name", stem)


def _root(value: object, where: str) -> RootSpec:
    if isinstance(value, RootSpec) and is_spec(value):
        return value
    raise UserError(Problem(where, f"expected a spec that can be run, got {type(value).__name__}"))


def _from_index(target: str, options: RunOptions) -> Target:
    from mm_config.runs.index import open_index
    from mm_config.runs.lookup import runs_named, why_none

    index = open_index(options.runs_dir)
    if runs := runs_named(index, target):
        return _of_run(index.folder(runs[0]))
    raise UserError(Problem(target, why_none(index, target) or _not_found(target, options)))


def _not_found(target: str, options: RunOptions) -> str:
    names = [found.name for found in pkgutil.iter_modules(_experiment_folders())]
    spellings = {name: f"experiments.{name}" for name in names}
    spellings |= {f"experiments.{name}": f"experiments.{name}" for name in names}
    spellings |= {f"experiments/{name}.py": f"experiments/{name}.py" for name in names}
    meant = did_you_mean(target, spellings, spellings.__getitem__)
    return f"no such file, module, run id or hash (runs are looked up in {options.runs_dir}){meant}"
