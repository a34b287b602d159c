"""`--extend RUN`: more steps after a finished training, in a run of their own."""

from __future__ import annotations

from mm_config.cli.scan import RUN, CommandLine, Option
from mm_config.cli.targets import find_run, runs_dir_of
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.evolve import replace
from mm_config.schema.root import RootSpec
from mm_config.specs.train import StartMode, TrainSpec
from mm_config.specs.weights import SavedWeights, TrainedBy

EXTEND = Option(
    "--extend",
    "Go on with a finished training in a new run, for more --spec.steps: its folder, id or hash prefix.",
    RUN,
)


def extended(spec: RootSpec, line: CommandLine) -> RootSpec:
    """What the run that --extend names was of, going on where it ended; the spec itself without the option.

    The training is named by its spec, or by its last checkpoint where another run of that spec would be
    taken.

    Raises:
        UserError: There is no such run, it is no training, or it has not finished.
    """
    if not line.has(EXTEND):
        return spec
    from mm_config.running.choosing import chosen_checkpoint, final_checkpoint
    from mm_config.running.saved import checkpoint_digest

    options = RunOptions(runs_dir=runs_dir_of(line))
    run = find_run(line.value(EXTEND), options.runs_dir)
    if not isinstance(run.spec, TrainSpec):
        raise UserError(Problem(EXTEND.flag, f"{run.path} is no training"))
    checkpoint = final_checkpoint(run.path) if run.result_path.is_file() else None
    if checkpoint is None:
        raise UserError(Problem(EXTEND.flag, f"{run.path} has not finished; go on with it by --resume"))
    before = TrainedBy(spec=run.spec)
    taken = chosen_checkpoint(run.spec, options, EXTEND.flag)
    if taken is None or taken.absolute() != checkpoint.absolute():
        before = SavedWeights(digest=checkpoint_digest(checkpoint), path=str(checkpoint.absolute()))
    return replace(run.spec, {"start_from": before, "start_mode": StartMode.EXACT, "name": spec.name})
