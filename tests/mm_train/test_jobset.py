"""The manifest for Kubernetes: as the published classes have it, and its pods do what they should."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubeflow_trainer_api.models.io_k8s_api_core_v1_config_map import IoK8sApiCoreV1ConfigMap
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

from mm_config.cli.app import app
from tests.mm_train.launched import STUB, launch

QUEUED = ["--launch.scheduler.queue", "team-a", "--launch.scheduler.namespace", "video"]
ARGUMENTS = ["--scheduler", "kubernetes", "--nodes", "4", "--launch.image", "registry.local/mm:1"]
SIZES = ["--launch.scheduler.memory-gb", "512", "--launch.scheduler.cpus", "64"]


def manifest(*words: str) -> list[dict[str, Any]]:
    (path,) = launch(*ARGUMENTS, *words)
    return list(yaml.safe_load_all(path.read_text()))


def pod_of(jobset: dict[str, Any]) -> dict[str, Any]:
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]["template"]["spec"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_field_is_one_of_the_published_classes() -> None:
    """What the classes do not know they drop, so that what comes back is another then."""
    for index, words in enumerate(([], QUEUED, SIZES, ["--launch.time-limit-minutes", "600"])):
        config, jobset = manifest(*words, "--launch.folder", f"launch-{index}")
        for given, cls in ((config, IoK8sApiCoreV1ConfigMap), (jobset, JobsetV1alpha2JobSet)):
            known = cls.from_dict(given)
            assert known is not None
            assert known.to_dict() == given
    broken = {**jobset, "spec": {**jobset["spec"], "replicatedJob": []}}
    known = JobsetV1alpha2JobSet.from_dict(broken)
    assert known is not None
    assert known.to_dict() != broken


def test_what_a_jobset_asks_for() -> None:
    config, jobset = manifest(*QUEUED, *SIZES, "--launch.requeues", "7", "--launch.time-limit-minutes", "600")
    assert config["metadata"] == {"name": "tiny-high", "namespace": "video"}
    labels = {"kueue.x-k8s.io/queue-name": "team-a"}
    assert jobset["metadata"] == {"name": "tiny-high", "namespace": "video", "labels": labels}
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 7
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["completions"], job["parallelism"], job["completionMode"]) == (4, 4, "Indexed")
    assert (job["backoffLimit"], job["activeDeadlineSeconds"]) == (0, 36_000)
    pod = pod_of(jobset)
    assert pod["terminationGracePeriodSeconds"] == 30 * 60 + 2 * 60
    limits = {"nvidia.com/gpu": 8, "cpu": 64, "memory": "512G"}
    assert pod["containers"][0]["resources"] == {"limits": limits}
    assert [volume["name"] for volume in pod["volumes"]] == ["shared", "experiments", "memory"]


@pytest.mark.parametrize("index", [0, 3])
def test_what_a_pod_runs(folder: Path, index: int) -> None:
    """The command of a pod, run here with an interpreter that only says what it was given."""
    mount = folder / "shared"
    mount.mkdir()
    (folder / "stub").write_text(STUB)
    (folder / "stub").chmod(0o755)
    words = ["--launch.scheduler.mount", str(mount), "--launch.python", str(folder / "stub")]
    own = ["--launch.environment", "NCCL_DEBUG=a b", "--launch.setup", "export LIBRARY=$HOME/lib"]
    npu = ["--spec.runtime.device", "npu", "--spec.runtime.deterministic"]
    _, jobset = manifest(*words, *own, *npu, "--launch.threads-per-rank", "4")
    (container,) = pod_of(jobset)["containers"]
    variables = {"HOME": "/home", "JOB": "j1", "JOBSET": "u1", "JOB_COMPLETION_INDEX": str(index)}
    environment = {"PATH": os.environ["PATH"], **variables}
    if index:
        (mount / "runs").mkdir()
        (mount / "runs/.shared-j1").touch()
    done = subprocess.run(container["command"], env=environment, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    said, *exports = done.stdout.splitlines()
    first = "true" if index == 0 else "false"
    assert said == (
        "-m torch.distributed.run --nnodes 4 --nproc-per-node 8 --max-restarts 3 --rdzv-backend c10d "
        "--rdzv-id tiny-high-u1 --rdzv-endpoint tiny-high-hosts-0-0.tiny-high:29400 "
        f"--rdzv-conf is_host={first},join_timeout=600,read_timeout=600 "
        "--signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --shutdown-timeout 1860 "
        f"/mm-launch/tiny_high.py --resume auto --runs-dir {mount}/runs"
    )
    expected = {
        "LIBRARY=/home/lib",
        "NCCL_DEBUG=a b",
        "OMP_NUM_THREADS=4",
        "HCCL_DETERMINISTIC=true",
        "CLOSE_MATMUL_K_SHIFT=1",
    }
    assert expected <= set(exports)


def test_a_pod_that_does_not_see_the_folder_ends_the_jobset(folder: Path) -> None:
    (folder / "shared").mkdir()
    _, jobset = manifest("--launch.scheduler.mount", str(folder / "shared"), "--launch.join-seconds", "1")
    (container,) = pod_of(jobset)["containers"]
    variables = {"JOB": "j1", "JOBSET": "u1", "JOB_COMPLETION_INDEX": "2", "HOSTNAME": "pod-2"}
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(container["command"], env=environment, capture_output=True, text=True, timeout=20)
    runs = folder / "shared/runs"
    assert done.stderr == f"pod-2 does not see the runs folder {runs}: all pods must share it\n"
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": "hosts", "operator": "In", "values": [done.returncode]}
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_the_client_is_handed_the_manifest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = folder / "bin/kubectl"
    client.parent.mkdir()
    monkeypatch.setenv("PATH", f"{client.parent}:/usr/bin:/bin")
    client.write_text('#!/bin/bash\necho "$@"\n')
    client.chmod(0o755)
    (path,) = launch(*ARGUMENTS, "--submit", "--launch.folder", "good")
    assert capsys.readouterr().out.endswith(f"create -f {path}\n")
    client.write_text("#!/bin/bash\necho 'no such namespace' >&2\nexit 1\n")
    assert app(["launch", "experiments.tiny_high", *ARGUMENTS, "--submit", "--launch.folder", "bad"]) == 2
    path = folder / "bad/tiny-high.yaml"
    assert capsys.readouterr().err == f"--submit: kubectl refused {path}: no such namespace\n"
