"""A launch as a script for Slurm's sbatch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from mm_config.schema import Problem
from mm_train.launching.hosts import Launch
from mm_train.launching.specs import SlurmSpec

_BODY = """
set -u

head=$(hostname)  # this shell runs on the first host
export head

ranks() {  # on each host
    first=false
    [ "$SLURM_NODEID" = 0 ] && first=true
RANKS
}

seen() {  # on each host; network filesystems may take some seconds to show a new file
    for _ in {1..30}; do [ -e "$1" ] && return; sleep 1; done
    echo "$SLURMD_NODENAME does not see the runs folder ${1%/*}: all hosts must share it" >&2
    exit 2
}

asked= step=
ask() { asked=yes; [ -z "$step" ] || kill -USR1 "$step"; }
trap ask USR1
trap : TERM  # Slurm gives it to the ranks, too, and the shell waits for them

shared=RUNS/.shared-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
trap 'rm -f "$shared"' EXIT
mkdir -p "${shared%/*}" && : > "$shared" || exit 2
SRUN bash -c "$(declare -f seen); seen '$shared'" || exit 2

SRUN bash -c "$(declare -f ranks); ranks" &
step=$!
while kill -0 "$step" 2> /dev/null; do wait "$step"; done
wait "$step"; status=$?

job=$(scontrol show job "$SLURM_JOB_ID")
[[ $job =~ PreemptTime=[0-9] ]] && asked=yes
if [ "$status" != 0 ] && [ -n "$asked" ] && [[ $job == *JobState=RUNNING* ]] &&
    [ "${SLURM_RESTART_COUNT:-0}" -lt REQUEUES ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def script(launch: Launch, slurm: SlurmSpec, here: Path) -> str:
    """The text of the script.

    The batch shell stays awake beside the step. Before the time limit Slurm gives it SIGUSR1, which it hands
    on: the ranks save and leave, and it puts the job into the queue again. A preempted step has its SIGTERM
    from Slurm while the shell hears nothing, but the job then has a PreemptTime. A cancelled job is not
    RUNNING any more, and not queued again.

    Args:
        launch: What is launched.
        slurm: What Slurm is asked for.
        here: Folder that the job starts in.
    """
    # A host that fails leaves the others the time to save, and torchrun of each ends its own ranks.
    srun = ["srun", "--kill-on-bad-exit=0", "--wait=0"]
    if launch.spec.image is not None:
        folders = dict.fromkeys(map(str, (here, launch.folder, launch.runs_dir)))
        mounts = ",".join(f"{folder}:{folder}" for folder in folders)
        srun += [f"--container-image={launch.spec.image}", f"--container-mounts={mounts}"]
    ranks = [*launch.preparing(), *launch.torchrun("$SLURM_JOB_ID", "$head", str(launch.experiment))]
    parts = {
        "RANKS": "\n".join(f"    {line}" for line in ranks),
        "RUNS": shlex.quote(str(launch.runs_dir)),
        "SRUN": " ".join(srun),
        "REQUEUES": str(launch.spec.requeues),
    }
    body = re.sub("|".join(parts), lambda found: parts[found[0]], _BODY)
    head = [f"#SBATCH {option}" for option in _options(launch, slurm, here)]
    return "\n".join(["#!/bin/bash", *head, body])


def path_problems(launch: Launch, here: Path) -> Iterator[Problem]:
    """Paths that stand in the script's head, where Slurm reads no quotes, or between a container's colons."""
    for flag, path in (("launch.folder", launch.folder), ("--runs-dir", launch.runs_dir), ("", here)):
        if not re.fullmatch(r"[\w/.+@=~-]+", str(path)):
            why = "can't stand in a script for Slurm; take a path of letters, digits and -_."
            yield Problem(flag, f"{str(path)!r} {why}")


def _options(launch: Launch, slurm: SlurmSpec, here: Path) -> Iterator[str]:
    spec = launch.spec
    yield f"--job-name={launch.name}"
    yield f"--nodes={spec.nodes}"
    yield "--ntasks-per-node=1"
    if spec.time_limit_minutes is not None:
        yield f"--time={spec.time_limit_minutes}"
    yield f"--signal=B:USR1@{launch.kill_seconds}"
    yield "--requeue"
    yield "--open-mode=append"
    yield f"--output={launch.folder}/%j.log"
    yield f"--chdir={here}"
    for name in ("partition", "account", "qos", "gres"):
        if (value := getattr(slurm, name)) is not None:
            yield f"--{name}={value}"
    if slurm.exclusive:
        yield "--exclusive"
    yield from slurm.options
