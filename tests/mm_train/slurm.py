"""A Slurm of two nodes on this machine, with a munge of its own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

import pytest

WANTED = ("munged", "slurmctld", "slurmd", "sbatch")
MISSING = [program for program in WANTED if shutil.which(program) is None]
needs_slurm = pytest.mark.skipif(
    bool(MISSING) or os.geteuid() != 0,
    reason="needs root and Slurm: apt-get install --no-install-recommends slurm-wlm munge",
)

CONFIGURATION = """
ClusterName=mm
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
SlurmUser=root
SlurmdUser=root
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=2
ReturnToService=2
KillWait=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=60 MaxTime=INFINITE
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF
"""
"""Jobs of `low` give way to those of `high` 60 s after a SIGTERM; what they came to is shown by scontrol."""


@contextmanager
def slurm() -> Generator[Path]:
    """Starts the daemons and gives the path of slurm.conf, which SLURM_CONF is to name.

    The folder `private` beside it is another one on the second node.
    """
    folder = Path(mkdtemp(prefix="mm-slurm-"))  # munge wants folders that others can't write but can pass
    folder.chmod(0o755)
    pids: list[Path] = []
    try:
        yield _started(folder, pids)
    finally:
        _end_jobs(folder / "slurm.conf")
        for path in reversed(pids):
            with suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGTERM)
        until(lambda: not any(map(_lives, pids)), 20)
        shutil.rmtree(folder, ignore_errors=True)


def _started(folder: Path, pids: list[Path]) -> Path:
    munge = folder / "munge"
    munge.mkdir()
    (munge / "key").write_bytes(os.urandom(1_024))
    shutil.chown(munge, "munge")
    shutil.chown(munge / "key", "munge")
    (munge / "key").chmod(0o400)
    files = {name: munge / name for name in ("socket", "key-file", "pid-file", "seed-file", "log-file")}
    files["key-file"] = munge / "key"
    pids.append(files["pid-file"])
    subprocess.run(
        ["runuser", "-u", "munge", "--", "munged", *(f"--{name}={path}" for name, path in files.items())],
        check=True,
        capture_output=True,
    )
    for name in ("state", "n1", "n2", "private"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    conf.write_text(CONFIGURATION.format(host=socket.gethostname(), folder=folder, ports=free_ports(3)))
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    apart = f"mount -t tmpfs none {folder}/private && exec slurmd -N n2"
    for name, command in (
        ("slurmctld", ["slurmctld", "-c"]),
        ("n1", ["slurmd", "-N", "n1"]),
        ("n2", ["unshare", "--mount", "bash", "-c", apart]),
    ):
        pids.append(folder / f"{name}.pid")
        subprocess.run(command, env=environment, check=True, capture_output=True)
    idle = ["sinfo", "--noheader", "--partition=low", "--states=idle", "--format=%D"]
    until(lambda: subprocess.run(idle, env=environment, capture_output=True).stdout.strip() == b"2", 30)
    return conf


def _end_jobs(conf: Path) -> None:
    """Leaves no process of a job behind, also where a test has failed."""
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    subprocess.run(["scancel", "--user=root"], env=environment, check=False, capture_output=True)
    jobs = ["squeue", "--noheader"]
    until(lambda: not subprocess.run(jobs, env=environment, capture_output=True).stdout.strip(), 60)


def _lives(path: Path) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int(path.read_text()), 0)
        return True
    return False


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports


def until(holds: Callable[[], bool], seconds: float) -> None:
    """Waits until something holds; fails where it never does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"did not come to hold in {seconds} s"
        time.sleep(0.2)


def job(number: str) -> dict[str, str]:
    """What `scontrol show job` says of a job."""
    shown = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True, check=True)
    return dict(re.findall(r"(\w+)=(\S+)", shown.stdout))
