"""A launched training on two hosts that meet over a network: ranks and hosts are lost, and no step."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_config import dump, replace
from mm_config.cli.app import app
from mm_config.specs.train import TrainSpec
from tests.mm_train.hosts import Host, needs_namespaces, processes_in, two_hosts
from tests.mm_train.launching import torchrun
from tests.mm_train.slurm import until

pytestmark = [pytest.mark.slow, needs_namespaces]
STEPS = 60


def test_a_lost_rank_and_lost_hosts(
    small: TrainSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    losses_of: Callable[[Path], list[float]],
    experiment: Callable[[TrainSpec], Path],
) -> None:
    """A rank is killed: torchrun starts all anew. The second host is lost: the scheduler ends the first one,
    and starts both. The first one, where they meet, is lost: the second ends by itself."""
    monkeypatch.chdir(tmp_path)
    changes = {"schedule.steps": STEPS, "checkpoint.every_steps": 5, "runtime.timeout_seconds": 60}
    spec = replace(small, changes)
    dump(spec, Path("spec.json"))
    hosts = ["--nodes", "2", "--launch.ranks-per-node", "1", "--launch.threads-per-rank", "1"]
    waits = ["--launch.join-seconds", "90", "--launch.restarts", "9", "--launch.folder", "job"]
    assert app(["launch", "spec.json", *hosts, *waits]) == 0
    (ranks,) = re.findall(
        r"^ranks\(\) \{.*?^\}$", next(Path("job").glob("*.sbatch")).read_text(), re.MULTILINE | re.DOTALL
    )
    runs = tmp_path / "runs" / spec.name

    def steps() -> int:
        return sum(len(file.read_text().splitlines()) for file in runs.glob("*/metrics.jsonl"))

    def goes_on() -> None:
        """Waits for new steps; a resumed run first takes back those after its checkpoint."""
        before = steps()
        until(lambda: steps() > before + 2, 240)

    with two_hosts(tmp_path) as (ha, hb):

        def start(host: Host) -> None:
            variables = {"SLURM_NODEID": str(int(host is hb)), "SLURM_JOB_ID": "77", "head": "ha"}
            host.start(f"{ranks}\nranks", tmp_path / f"{host.name}.log", **variables)

        start(ha)
        start(hb)
        until(lambda: steps() > 6, 240)
        os.kill(rank_of(hb), signal.SIGKILL)
        goes_on()
        hb.lose()
        ha.process.send_signal(signal.SIGTERM)
        assert ha.process.wait(120) != 0
        start(ha)
        start(hb)
        goes_on()
        ha.lose()
        assert hb.process.wait(240) != 0
        start(ha)
        start(hb)
        ended = [ha.process.wait(400), hb.process.wait(120)]
        assert ended == [0, 0], (tmp_path / "ha.log").read_text()[-3_000:]
    (run_dir,) = runs.glob("*-1")
    undisturbed = replace(spec, "name", "undisturbed")
    assert torchrun(experiment(undisturbed), tmp_path / "runs")[0] == 0
    (other,) = (tmp_path / "runs/undisturbed").glob("*-1")
    assert losses_of(run_dir) == losses_of(other)
    assert len(losses_of(other)) == STEPS


def rank_of(host: Host) -> int:
    """The process of a host that trains."""
    found = [
        pid
        for pid in processes_in(host.namespace)
        if b"LOCAL_RANK=0" in Path(f"/proc/{pid}/environ").read_bytes()
    ]
    return min(found)
