"""What `mm launch` writes for Slurm, and what it refuses before it writes anything."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import tiny, tiny_high
from mm_config import dump, exact_hash, replace
from mm_config.cli.app import app
from mm_config.cli.targets import resolve
from mm_config.options.run_options import RunOptions
from mm_config.specs.npu import NpuSpec
from mm_train.launching import LaunchSpec, SlurmSpec
from tests.mm_train.launched import STUB, launch

CLUSTER = """from mm_train.launching import LaunchSpec, SlurmSpec

SPEC = LaunchSpec(
    nodes=3,
    scheduler=SlurmSpec(partition="gpu", gres="gpu:8", options=("--exclude=n17",)),
    time_limit_minutes=1440,
    setup=("module load cuda",),
)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The lines that a launch of the tiny training is refused with; nothing is written then."""
    before = sorted(Path().rglob("*"))
    assert app(["launch", "experiments.tiny_high", *words]) == 2
    assert sorted(Path().rglob("*")) == before
    return capsys.readouterr().err.splitlines()


def options_of(script: Path) -> list[str]:
    return re.findall(r"^#SBATCH (.*)$", script.read_text(), re.MULTILINE)


def test_the_head_of_a_script(folder: Path) -> None:
    Path("cluster.py").write_text(CLUSTER)
    script, experiment = launch("--launch", "cluster.py", "--nodes", "4", "--launch.scheduler.qos", "long")
    assert options_of(script) == [
        "--job-name=tiny-high",
        "--nodes=4",
        "--ntasks-per-node=1",
        "--time=1440",
        f"--signal=B:USR1@{30 * 60 + 2 * 60}",
        "--requeue",
        "--open-mode=append",
        f"--output={folder}/launches/tiny-high/%j.log",
        f"--chdir={folder}",
        "--partition=gpu",
        "--qos=long",
        "--gres=gpu:8",
        "--exclusive",
        "--exclude=n17",
    ]
    subprocess.run(["bash", "-n", script], check=True)
    assert script.read_text().startswith("#!/bin/bash\n#SBATCH ")
    assert exact_hash(resolve(str(experiment), RunOptions())) == exact_hash(tiny_high.SPEC)


def test_the_command_of_a_host(folder: Path) -> None:
    """The function that srun starts, run here with an interpreter that only says what it was given."""
    Path("stub").write_text(STUB)
    Path("stub").chmod(0o755)
    npu = NpuSpec(task_queue=2, hccl_exec_timeout=1200, hccl_event_timeout=1500)
    dump(
        replace(tiny_high.SPEC, {"runtime.npu": npu, "runtime.device": "npu", "name": "on_npus"}), "spec.json"
    )
    words = ["spec.json", "--nodes", "2", "--launch.ranks-per-node", "4", "--launch.port", "5555"]
    further = ["--launch.python", str(folder / "stub"), "--location", "clips=/data/my clips"]
    assert app(["launch", *words, *further, "--launch.leave-seconds", "2000"]) == 0
    script = Path("launches/on-npus/on-npus.sbatch").read_text()
    (ranks,) = re.findall(r"^ranks\(\) \{.*?^\}$", script, re.MULTILINE | re.DOTALL)
    for node, first in (("0", "true"), ("1", "false")):
        environment = {"SLURM_NODEID": node, "SLURM_JOB_ID": "77", "head": "n1"}
        done = subprocess.run(
            ["bash", "-c", f"{ranks}\nranks"], env=environment, capture_output=True, text=True, check=True
        )
        said, *exports = done.stdout.splitlines()
        assert said == (
            "-m torch.distributed.run --nnodes 2 --nproc-per-node 4 --max-restarts 3 --rdzv-backend c10d "
            f"--rdzv-id 77 --rdzv-endpoint n1:5555 --rdzv-conf is_host={first},join_timeout=600,"
            "read_timeout=600 --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 "
            f"--shutdown-timeout 2000 {folder}/launches/on-npus/on_npus.py --resume auto "
            f"--runs-dir {folder}/runs --location clips=/data/my clips"
        )
        asked = {"TASK_QUEUE_ENABLE=2", "HCCL_EXEC_TIMEOUT=1200", "HCCL_EVENT_TIMEOUT=1500"}
        assert asked <= set(exports)


def test_a_container_sees_what_the_job_needs(folder: Path) -> None:
    script, _ = launch("--launch.image", "registry.local/mm:1", "--runs-dir", "/data/runs")
    (srun,) = set(re.findall(r"^(srun .*?) bash", script.read_text(), re.MULTILINE))
    mounts = [f"{path}:{path}" for path in (folder, folder / "launches/tiny-high", "/data/runs")]
    assert srun == (
        "srun --kill-on-bad-exit=0 --wait=0 --container-image=registry.local/mm:1 "
        f"--container-mounts={','.join(mounts)}"
    )
    assert "    exec python -m torch" in script.read_text()


REFUSED = {
    "--nodes 3": "spec.data.batch_size: 32 clips do not divide over 24 ranks; nearest: 24 or 48",
    "--nodes 2 --launch.ranks-per-node 2 --spec.parallel.ring 3": "spec.parallel: ulysses 1 x ring 3 x "
    "tensor 1 = 3 ranks per clip do not divide 4 ranks; nearest numbers of ranks: 3 or 6",
    "--submit": "--submit: sbatch is not installed here; leave --submit out, and submit where it is",
    "--submit --scheduler kubernetes --launch.image mm": "--submit: kubectl is not installed here; leave "
    "--submit out, and submit where it is",
    "--scheduler kubernetes": "launch.image: is None, and Kubernetes starts containers only; name one",
    "--scheduler kubernetes --launch.image mm --runs-dir /elsewhere": "--runs-dir: /elsewhere is not below "
    "/shared, which all pods share",
    "--launch.leave-seconds 600": "launch.leave_seconds: must exceed the 1800 s of "
    "spec.runtime.timeout_minutes, or ranks are killed before they can say who hangs, got 600; give a "
    "greater one, or --spec.runtime.timeout-seconds 300",
    "--launch.kill-seconds 1860": "launch.kill_seconds: must exceed the 1860 s in which ranks leave, "
    "got 1860",
    "--launch.time-limit-minutes 32": "launch.time_limit_minutes: 32 min end before the 1920 s of "
    "launch.kill_seconds; give more, or ranks less time by --spec.runtime.timeout-seconds",
    "--launch.environment HCCL_DETERMINISTIC=0 --spec.runtime.deterministic": "launch.environment.0: "
    "HCCL_DETERMINISTIC=0 contradicts spec.runtime, which asks for HCCL_DETERMINISTIC=true",
    "--launch.environment A-B=c": "launch.environment.0: must be NAME=VALUE, got 'A-B=c'",
    "--launch.scheduler.partition gpu#x": "launch.scheduler.partition: must be one word without quotes, got "
    "'gpu#x'",
    "--launch.node 3": "--launch.node: unknown flag; did you mean --launch.nodes or --launch.ranks_per_node?",
    "--launch.nodes 0": "launch.nodes: must be >= 1 hosts, got 0",
    "--scheduler pbs": "--scheduler: expected one of slurm, kubernetes, got 'pbs'",
    "--launch experiments.tiny_low": "--launch: expected a LaunchSpec, got TrainSpec",
    "--launch.folder a,b": "launch.folder: '{here}/a,b' can't stand in a script for Slurm; take a path of "
    "letters, digits and -_.",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_refused(
    words: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert refused(capsys, *words.split()) == [REFUSED[words].replace("{here}", str(folder))]


def test_files_that_exist_stay(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in launch():
        path.write_text("mine")
    capsys.readouterr()
    why = "exists; remove it, or name another folder by --launch.folder"
    written = folder / "launches/tiny-high"
    assert refused(capsys) == [f"{written}/tiny-high.sbatch: {why}", f"{written}/tiny_high.py: {why}"]
    assert {path.read_text() for path in written.iterdir()} == {"mine"}


def test_a_generation_is_launched_on_the_ranks_of_its_layout_and_begins_anew(
    capsys: pytest.CaptureFixture[str],
) -> None:
    dump(tiny.SPEC, "spec.json")
    asked = ("launch", "spec.json", "--launch.ranks-per-node", "2", "--launch.name", "job")
    assert app([*asked]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("spec.runtime.parallel: data 1 x ulysses 1 x ring 1 x tensor 1 = 1 rank, but ")
    late = ("--launch.leave-seconds", "30", "--spec.runtime.parallel.data", "2")
    assert app([*asked, *late]) == 2
    assert "--spec.runtime.parallel.timeout-seconds 15" in capsys.readouterr().err
    assert app([*asked, "--spec.runtime.parallel.data", "2"]) == 0
    (script,) = Path("launches/job").glob("*.sbatch")
    (experiment,) = Path("launches/job").glob("*.py")
    assert "--resume" not in script.read_text() and str(experiment) in script.read_text()
    found = resolve(str(experiment), RunOptions())
    assert exact_hash(found) == exact_hash(replace(tiny.SPEC, {"runtime.parallel.data": 2}))


def test_only_runs_are_launched(capsys: pytest.CaptureFixture[str]) -> None:
    dump(LaunchSpec(), "spec.json")
    assert app(["launch", "spec.json", "--launch.ranks-per-node", "1"]) == 2
    said = capsys.readouterr().err
    assert said == "spec: is a LaunchSpec; trainings and generations are launched\n"


def test_a_launch_spec_is_stored_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    dump(LaunchSpec(nodes=3, scheduler=SlurmSpec(account="video")), "cluster.json")
    assert app(["show", "cluster.json", "--format", "flat"]) == 0
    assert "spec.scheduler.account = video" in capsys.readouterr().out
    (script, _) = launch("--launch", "cluster.json", "--launch.ranks-per-node", "1", "--nodes", "2")
    assert {"--nodes=2", "--account=video"} <= set(options_of(script))


def test_nothing_of_it_needs_torch() -> None:
    code = (
        "import sys; from mm_config.cli.app import app; app(['launch', 'experiments.tiny_high']); "
        "sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
