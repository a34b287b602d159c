"""What every host of a launch runs: variables, checks and torchrun, as lines of bash."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

from mm_config.npu import variables_of
from mm_config.rules import group_timeout
from mm_config.schema import Problem
from mm_config.specs import InferSpec, TrainSpec
from mm_train.launching.specs import KubernetesSpec, LaunchSpec

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
"""What torchrun passes on to ranks: its own four, and the one that Slurm gives before a time limit."""
_MARGIN_SECONDS = 60
"""Between two waits that follow each other where none is given: saving takes its time, and so does ending."""


@attrs.frozen
class Launch:
    """A launch of one training or generation, with what stands beside both."""

    spec: LaunchSpec
    """What is asked for."""
    run: TrainSpec | InferSpec
    """What is run."""
    runs_dir: Path
    """Folder of all runs, which all hosts share."""
    locations: tuple[str, ...] = ()
    """Where weights and data lie, each `NAME=PATH`."""

    @property
    def name(self) -> str:
        """Of the job and of the files; only what schedulers allow in names is left."""
        return re.sub(r"[^a-z0-9]+", "-", (self.spec.name or self.run.name).lower()).strip("-")[:40]

    @property
    def folder(self) -> Path:
        """Where the files are written."""
        return Path(self.spec.folder or f"launches/{self.name}").absolute()

    @property
    def experiment(self) -> Path:
        """The file of the run's spec, as it is now."""
        return self.folder / f"{self.name.replace('-', '_')}.py"

    @property
    def group_seconds(self) -> int:
        """Longest wait of a rank for the others."""
        return group_timeout(self.run.runtime)[1]

    @property
    def leave_seconds(self) -> int:
        """Longest time from a signal to the end of the ranks."""
        return self.spec.leave_seconds or self.group_seconds + _MARGIN_SECONDS

    @property
    def kill_seconds(self) -> int:
        """Time from a signal to the scheduler's kill."""
        return self.spec.kill_seconds or self.leave_seconds + _MARGIN_SECONDS

    @property
    def _timeout_flag(self) -> str:
        """The option that says how long ranks wait."""
        within = "" if isinstance(self.run, TrainSpec) else "parallel."
        return f"--spec.runtime.{within}timeout-seconds"

    def problems(self) -> Iterator[Problem]:
        """What is wrong between a launch and its run; each wait ends before the next one does."""
        if not self.name:
            yield Problem("launch.name", "is empty, and so is that of the run; give one")
        name, group = group_timeout(self.run.runtime)
        if self.leave_seconds <= group:
            shorter = f"{self._timeout_flag} {max(self.leave_seconds // 2, 1)}"
            yield Problem(
                "launch.leave_seconds",
                f"must exceed the {group} s of spec.runtime.{name}, or ranks are killed before they can say "
                f"who hangs, got {self.leave_seconds}; give a greater one, or {shorter}",
            )
        if self.kill_seconds <= self.leave_seconds:
            yield Problem(
                "launch.kill_seconds",
                f"must exceed the {self.leave_seconds} s in which ranks leave, got {self.kill_seconds}",
            )
        limit = self.spec.time_limit_minutes
        if limit is not None and 60 * limit <= self.kill_seconds:
            yield Problem(
                "launch.time_limit_minutes",
                f"{limit} min end before the {self.kill_seconds} s of launch.kill_seconds; give more, or "
                f"ranks less time by {self._timeout_flag}",
            )
        asked = variables_of(self.run)
        for index, line in enumerate(self.spec.environment):
            variable, _, text = line.partition("=")
            if variable in asked and text != asked[variable]:
                yield Problem(
                    f"launch.environment.{index}",
                    f"{line} contradicts spec.runtime, which asks for {variable}={asked[variable]}",
                )

    def preparing(self) -> list[str]:
        """Lines that set a host up: variables of the spec's runtime, of the launch, and its own lines."""
        variables = variables_of(self.run) | dict(line.split("=", 1) for line in self.spec.environment)
        if self.spec.threads_per_rank is not None:
            variables["OMP_NUM_THREADS"] = str(self.spec.threads_per_rank)
        exports = [f"export {name}={shlex.quote(text)}" for name, text in variables.items()]
        return [*self.spec.setup, *exports]

    def torchrun(self, job: str, head: str, experiment: str) -> list[str]:
        """The command of one host, as lines of bash.

        Args:
            job: What tells the job from all others, the same each time that it is started again, as bash
                expands it: a run that the job has left goes on without being asked who holds it.
            head: The first host, as bash expands it.
            experiment: Path of the experiment file.
        """
        spec = self.spec
        waits = f"join_timeout={spec.join_seconds},read_timeout={spec.join_seconds}"
        # A generation is the short part of the work, and starts anew.
        resumed = ["--resume", "auto"] if isinstance(self.run, TrainSpec) else []
        places = [word for location in self.locations for word in ("--location", location)]
        parts = [
            f"exec {_python(spec)} -m torch.distributed.run",
            f"--nnodes {spec.nodes} --nproc-per-node {spec.ranks_per_node} --max-restarts {spec.restarts}",
            f'--rdzv-backend c10d --rdzv-id "{job}" --rdzv-endpoint "{head}:{spec.port}"',
            f'--rdzv-conf "is_host=$first,{waits}"',
            f"--signals-to-handle {SIGNALS} --shutdown-timeout {self.leave_seconds}",
            shlex.join([experiment, *resumed, "--runs-dir", str(self.runs_dir), *places]),
        ]
        return " \\\n    ".join(parts).split("\n")


def _python(spec: LaunchSpec) -> str:
    if spec.python is not None:
        return shlex.quote(spec.python)
    inside = spec.image is not None or isinstance(spec.scheduler, KubernetesSpec)
    return "python" if inside else shlex.quote(sys.executable)
