"""A launched training on a real Slurm: preempted, out of time or cancelled, it loses nothing."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mm_config import dump, replace
from mm_config.cli.app import app
from mm_config.specs.train import TrainSpec
from tests.mm_train.launching import torchrun
from tests.mm_train.slurm import free_ports, job, needs_slurm, slurm, until

pytestmark = [pytest.mark.slow, needs_slurm]
STEPS = 100
PATIENCE = 240
"""Seconds for what takes some ten where the machine has nothing else to do."""


@pytest.fixture(scope="module")
def configuration() -> Iterator[Path]:
    with slurm() as conf:
        yield conf


class Cluster:
    """What a user of the cluster does."""

    def __init__(self, folder: Path, spec: TrainSpec) -> None:
        self.folder, self.spec = folder, spec
        dump(spec, folder / "spec.json")

    def submit(self, capsys: pytest.CaptureFixture[str], *words: str) -> str:
        """Launches the spec on two nodes of a rank each and gives the job's number."""
        waits = ["--launch.leave-seconds", "40", "--launch.kill-seconds", "50"]
        port = ["--launch.port", str(free_ports(1)[0]), "--launch.threads-per-rank", "1"]
        ranks = ["--nodes", "2", "--launch.ranks-per-node", "1", "--launch.scheduler.no-exclusive"]
        line = ["launch", "spec.json", *ranks, *waits, *port, "--launch.restarts", "0", "--submit", *words]
        assert app(line) == 0, capsys.readouterr().err
        return capsys.readouterr().out.split()[-1]

    @property
    def run_dirs(self) -> list[Path]:
        return sorted((self.folder / "runs" / self.spec.name).glob("*-1"))

    def steps(self) -> int:
        """Steps that are written down so far."""
        files = [path / "metrics.jsonl" for path in self.run_dirs]
        return sum(len(file.read_text().splitlines()) for file in files if file.exists())

    def log(self, number: str) -> str:
        (file,) = self.folder.glob(f"launches/*/{number}.log")
        return file.read_text()


@pytest.fixture
def cluster(
    configuration: Path, small: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Cluster:
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    monkeypatch.chdir(tmp_path)
    changes = {"schedule.steps": STEPS, "runtime.timeout_seconds": 20, "checkpoint.every_steps": STEPS}
    return Cluster(tmp_path, replace(small, changes))


def finished(cluster: Cluster, number: str, seconds: float = 2 * PATIENCE) -> None:
    """Waits for the end of a job, and expects it to be a good one."""
    until(lambda: job(number)["JobState"] not in ("RUNNING", "PENDING", "COMPLETING"), seconds)
    assert job(number)["JobState"] == "COMPLETED", cluster.log(number)


def test_a_preempted_job_goes_on_to_the_same_losses(
    cluster: Cluster,
    capsys: pytest.CaptureFixture[str],
    losses_of: Callable[[Path], list[float]],
    experiment: Callable[[TrainSpec], Path],
) -> None:
    number = cluster.submit(capsys)
    until(lambda: cluster.steps() > 3, PATIENCE)
    more_urgent = ["sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 1"]
    subprocess.run(more_urgent, check=True, capture_output=True)
    until(lambda: job(number)["Restarts"] == "1", PATIENCE)
    assert 3 < cluster.steps() < STEPS, "it was to be preempted on its way"
    finished(cluster, number)
    (run_dir,) = cluster.run_dirs
    undisturbed = replace(cluster.spec, "name", "undisturbed")
    assert torchrun(experiment(undisturbed), cluster.folder / "runs")[0] == 0
    (other,) = (cluster.folder / "runs/undisturbed").glob("*-1")
    assert losses_of(run_dir) == losses_of(other)
    assert len(losses_of(other)) == STEPS


def test_a_job_that_runs_out_of_time_goes_on_and_a_cancelled_one_does_not(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """`scancel --batch` gives the signal that the end of the time limit would give, by minutes sooner."""
    number = cluster.submit(capsys)
    until(lambda: cluster.steps() > 3, PATIENCE)
    subprocess.run(["scancel", "--batch", "--signal=USR1", number], check=True)
    until(lambda: job(number)["Restarts"] == "1", PATIENCE)
    steps = cluster.steps()
    until(lambda: cluster.steps() > steps, PATIENCE)
    assert len(cluster.run_dirs) == 1
    subprocess.run(["scancel", number], check=True)
    until(lambda: job(number)["JobState"] == "CANCELLED", PATIENCE)
    time.sleep(10)  # a job that is queued again is PENDING at once
    assert (job(number)["JobState"], job(number)["Restarts"]) == ("CANCELLED", "1")


def test_a_job_that_loses_a_node_goes_on_from_its_last_checkpoint(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], metrics_of: Callable[[Path], list[dict[str, Any]]]
) -> None:
    number = cluster.submit(capsys, "--spec.checkpoint.every-steps", "5")
    until(lambda: cluster.steps() > 6, PATIENCE)
    set_node = ["scontrol", "update", "NodeName=n2"]
    subprocess.run([*set_node, "State=DOWN", "Reason=lost"], check=True)
    until(lambda: job(number)["Restarts"] == "1", PATIENCE)
    subprocess.run([*set_node, "State=RESUME"], check=True)
    finished(cluster, number)
    (run_dir,) = cluster.run_dirs
    assert [line["step"] for line in metrics_of(run_dir)] == list(range(1, STEPS + 1))
    assert "after step 0" not in cluster.log(number)
    assert "after step " in cluster.log(number)


def test_a_job_whose_nodes_do_not_share_the_folder_says_so(
    configuration: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    runs_dir = configuration.parent / "private/runs"
    number = cluster.submit(capsys, "--runs-dir", str(runs_dir))
    until(lambda: job(number)["JobState"] == "FAILED", PATIENCE)
    assert job(number)["ExitCode"] == "2:0"
    said = f"n2 does not see the runs folder {runs_dir}: all hosts must share it"
    assert said in cluster.log(number)
    assert list(runs_dir.iterdir()) == []
