"""`--like RUN`: computing as a stored run did."""

from __future__ import annotations

from mm_config.cli.scan import RUN, CommandLine, Option
from mm_config.cli.targets import find_run, runs_dir_of
from mm_config.options.run_options import Threads
from mm_config.schema.errors import Problem, UserError

LIKE = Option("--like", "Compute on as many threads as a run: its folder, id, hash prefix or video.", RUN)


def threads_like(line: CommandLine) -> Threads | None:
    """The threads of the run that --like names; None where it is not given.

    Raises:
        UserError: It names no run, or the run has recorded no threads.
    """
    if not line.has(LIKE):
        return None
    from mm_config.runs.provenance import read_provenance, recorded_threads
    from mm_config.runs.record import PROVENANCE_FILE

    file = find_run(line.value(LIKE), runs_dir_of(line)).path / PROVENANCE_FILE
    try:
        return recorded_threads(read_provenance(file))
    except LookupError as error:
        raise UserError(Problem(LIKE.flag, f"{file} tells of no threads")) from error
