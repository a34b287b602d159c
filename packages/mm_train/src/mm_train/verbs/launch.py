"""`mm launch`: a training or a generation on many hosts, as a job of Slurm or Kubernetes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import attrs

from mm_config.cli import (
    LOCATION,
    RUNS_DIR,
    TARGET_HELP,
    CommandLine,
    Option,
    Usage,
    Verb,
    overridden,
    read_targets,
    resolve,
    runs_dir_of,
    whole_number,
)
from mm_config.console import say, typed_path
from mm_config.durable import staged_file
from mm_config.options import RunOptions, load_locations
from mm_config.running import check_carried_out
from mm_config.schema import Problem, RootSpec, UserError, gathering
from mm_config.specs import InferSpec, TrainSpec
from mm_config.stored import to_source
from mm_train.launching import KubernetesSpec, LaunchSpec, SlurmSpec
from mm_train.launching.hosts import Launch
from mm_train.launching.kubernetes import manifest
from mm_train.launching.slurm import path_problems, script

_FIELD, _SPEC = "--launch.", "--spec."
_SCHEDULERS = {"slurm": SlurmSpec(), "kubernetes": KubernetesSpec()}
_CLIENTS = {"slurm": ("sbatch",), "kubernetes": ("kubectl", "create", "-f")}

NODES = Option("--nodes", "Number of hosts; short for --launch.nodes.", "N", read=whole_number)
SCHEDULER = Option(
    "--scheduler", "Who starts the hosts (default: whom the launch spec names).", "NAME", tuple(_SCHEDULERS)
)
LAUNCH = Option(
    "--launch",
    "A launch spec: a file whose SPEC is a mm_train.launching.LaunchSpec, or a stored one (default: one host "
    "of 8 ranks). --launch.FIELD VALUE changes a field of it; mm show FILE --format flat lists them.",
    "FILE",
)
SUBMIT = Option("--submit", "Hand the file to sbatch or to kubectl, too.")
USAGE = Usage(
    "mm launch TARGET [--nodes N] [--scheduler NAME] [--launch FILE] [--submit] [--launch.FIELD VALUE ...] "
    "[--spec.FIELD VALUE ...] [--location NAME=PATH ...] [--runs-dir DIR]",
    "Write the script or the manifest that starts a run on many hosts, and submit it.",
    "Writes what Slurm or Kubernetes needs to start a training or a generation: hosts that meet, the "
    "variables that the spec's runtime asks for, waits in their order, a check that all hosts see the runs "
    "folder, and another start after a time limit, a preemption or a lost host, with which a training goes "
    "on from the last checkpoint and a generation begins anew. The spec is written down as it is now: what "
    "is edited later changes no job that waits.\n\n"
    f"{TARGET_HELP}",
    (NODES, SCHEDULER, LAUNCH, SUBMIT, LOCATION, RUNS_DIR),
    (
        ("mm launch experiments/wan22_high.py --nodes 4 --scheduler slurm", "a script for sbatch"),
        ("mm launch experiments/wan22_high.py --launch cluster.py --submit", "as a file says, and submitted"),
        ("mm launch experiments/tiny_high.py --nodes 2 --launch.ranks-per-node 1", "with a field changed"),
    ),
)


def launch(line: CommandLine) -> int:
    """Writes the files, and submits them where that is asked for."""
    problems: list[Problem] = []
    spec, run = LaunchSpec(), None
    with gathering(problems):
        spec = _launch_spec(line)
    with gathering(problems):
        load_locations(line.values(LOCATION))
    with gathering(problems):
        others = tuple(given for given in line.fields if not given.flag.startswith(_FIELD))
        world_size = None if problems else spec.world_size
        (target,) = read_targets(attrs.evolve(line, fields=others), world_size)
        run = _run(target)
    if problems or run is None:
        raise UserError(problems)
    here = Path.cwd()
    runs_dir = _runs_dir(spec, runs_dir_of(line), here)
    made = Launch(spec, run, runs_dir, line.values(LOCATION))
    problems += made.problems()
    if isinstance(spec.scheduler, SlurmSpec):
        problems += path_problems(made, here)
    files, client = _files(made, here)
    problems += [
        Problem(str(path), "exists; remove it, or name another folder by --launch.folder")
        for path in files
        if path.exists()
    ]
    if line.has(SUBMIT) and shutil.which(client[0]) is None:
        problems.append(
            Problem(
                SUBMIT.flag, f"{client[0]} is not installed here; leave --submit out, and submit where it is"
            )
        )
    if problems:
        raise UserError(problems)
    _write(files)
    for path in files:
        say(f"wrote {typed_path(path)}")
    job = [*client, typed_path(next(iter(files)))]
    if not line.has(SUBMIT):
        say(f"submit it by: {' '.join(job)}")
        return 0
    done = subprocess.run([*client, str(next(iter(files)))], capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise UserError(Problem(SUBMIT.flag, f"{client[0]} refused {next(iter(files))}: {said}"))
    say(done.stdout.strip())
    return 0


def _launch_spec(line: CommandLine) -> LaunchSpec:
    """What the file says, changed by the options and the fields of the line."""
    spec = LaunchSpec()
    if line.has(LAUNCH):
        found = resolve(line.value(LAUNCH), RunOptions(runs_dir=runs_dir_of(line)))
        if not isinstance(found, LaunchSpec):
            raise UserError(Problem(LAUNCH.flag, f"expected a LaunchSpec, got {type(found).__name__}"))
        # A file's own name stands where its spec has none; a job is called after its training instead.
        spec = attrs.evolve(found, name="" if found.name == Path(line.value(LAUNCH)).stem else found.name)
    if line.has(SCHEDULER) and type(spec.scheduler) is not type(_SCHEDULERS[line.value(SCHEDULER)]):
        spec = attrs.evolve(spec, scheduler=_SCHEDULERS[line.value(SCHEDULER)])
    fields = tuple(
        attrs.evolve(given, flag=given.flag.replace(_FIELD, _SPEC, 1))
        for given in line.fields
        if given.flag.startswith(_FIELD)
    )
    if line.has(NODES):
        spec = attrs.evolve(spec, nodes=line.value(NODES))
    try:
        changed = overridden(spec, fields)
    except UserError as error:
        raise UserError(
            Problem(_renamed(problem.path), _renamed(problem.message)) for problem in error.problems
        ) from error
    assert isinstance(changed, LaunchSpec)
    return changed


def _renamed(text: str) -> str:
    """What is said of `spec.` fields, said of a launch."""
    return re.sub(r"\bspec\.", "launch.", text)


def _run(spec: RootSpec) -> TrainSpec | InferSpec:
    if not isinstance(spec, TrainSpec | InferSpec):
        raise UserError(
            Problem("spec", f"is a {type(spec).__name__}; trainings and generations are launched")
        )
    check_carried_out(spec)
    return spec


def _runs_dir(spec: LaunchSpec, runs_dir: Path, here: Path) -> Path:
    """Where the hosts have the folder of all runs: pods start in the mounted folder."""
    match spec.scheduler:
        case KubernetesSpec(mount=mount):
            found = PurePosixPath(mount) / runs_dir
            if not found.is_relative_to(mount):
                raise UserError(Problem(RUNS_DIR.flag, f"{found} is not below {mount}, which all pods share"))
            return Path(found)
        case _:
            return here / runs_dir


def _files(made: Launch, here: Path) -> tuple[dict[Path, str], tuple[str, ...]]:
    """What is written, the job first, and who takes it."""
    experiment = to_source(made.run)
    match made.spec.scheduler:
        case KubernetesSpec() as kubernetes:
            return {made.folder / f"{made.name}.yaml": manifest(made, kubernetes, experiment)}, _CLIENTS[
                "kubernetes"
            ]
        case SlurmSpec() as slurm:
            files = {
                made.folder / f"{made.name}.sbatch": script(made, slurm, here),
                made.experiment: experiment,
            }
            return files, _CLIENTS["slurm"]


def _write(files: dict[Path, str]) -> None:
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with staged_file(path) as stage:
                stage.write_text(text, "utf-8")
        except OSError as error:
            raise UserError(Problem(str(path), f"can't be written: {error.strerror}")) from error


VERB = Verb(USAGE, launch)
