"""What a launch says: hosts, ranks, waits in their order, and what a scheduler is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mm_config.schema import EXECUTION, LOCATION, Problem, RootSpec, field, spec


@spec("slurm")
class SlurmSpec:
    """What a job asks Slurm for."""

    partition: str | None = field(default=None, role=EXECUTION, min_length=1)
    """Partition; None takes the cluster's default."""
    account: str | None = field(default=None, role=EXECUTION, min_length=1)
    """Account that the time is charged to."""
    qos: str | None = field(default=None, role=EXECUTION, min_length=1)
    """Quality of service."""
    gres: str | None = field(default=None, role=EXECUTION, min_length=1)
    """Devices of each node as the cluster names them, such as `gpu:8`."""
    exclusive: bool = field(default=True, role=EXECUTION)
    """Whether the job shares its nodes with no other."""
    options: tuple[str, ...] = field(default=(), role=EXECUTION)
    """Further options of sbatch, each with its dashes, such as `--exclude=n17`."""

    def problems(self) -> Iterator[Problem]:
        """Each value is one word of a script's head, where Slurm reads no quotes."""
        words = {name: getattr(self, name) for name in ("partition", "account", "qos", "gres")}
        for name, word in words.items():
            if word is not None and not re.fullmatch(r"[^\s'\"\\#]+", word):
                yield Problem(name, f"must be one word without quotes, got {word!r}")
        for index, option in enumerate(self.options):
            if not re.fullmatch(r"-[^\s'\"\\#]+", option):
                yield Problem(f"options.{index}", f"must be one word such as --exclude=n17, got {option!r}")


@spec("kubernetes")
class KubernetesSpec:
    """What a job asks Kubernetes for: a JobSet of one pod on each host."""

    namespace: str | None = field(default=None, role=EXECUTION, min_length=1)
    """Namespace; None takes that of whoever submits."""
    queue: str | None = field(default=None, role=EXECUTION, min_length=1)
    """Kueue's local queue; None goes past Kueue."""
    claim: str = field(default="shared", role=LOCATION, min_length=1)
    """Persistent volume claim that all pods mount, which holds runs, weights and data."""
    mount: str = field(default="/shared", role=LOCATION)
    """Where the pods have it; the folder that commands start in."""
    device: str | None = field(default="nvidia.com/gpu", role=EXECUTION)
    """Resource that each rank has one of, such as `huawei.com/Ascend910`; None for CPUs."""
    memory_gb: int | None = field(default=None, ge=1, le=1_000_000, role=EXECUTION, unit="GB")
    """Memory of a pod."""
    cpus: int | None = field(default=None, ge=1, le=100_000, role=EXECUTION, unit="cores")
    """Cores of a pod."""

    def problems(self) -> Iterator[Problem]:
        """Names are what Kubernetes takes, and the mount is a path."""
        for name in ("namespace", "queue", "claim"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", value):
                yield Problem(name, f"must be small letters, digits and dashes inside, got {value!r}")
        if self.device is not None and not re.fullmatch(r"([a-z0-9.-]+/)?[A-Za-z0-9._-]+", self.device):
            yield Problem("device", f"must be a resource such as nvidia.com/gpu, got {self.device!r}")
        if not re.fullmatch(r"(/[\w.-]+)+", self.mount):
            yield Problem("mount", f"must be an absolute path without spaces, got {self.mount!r}")


@spec("launch")
class LaunchSpec(RootSpec):
    """How a training is started on many hosts; in no hash of the training."""

    name: str = field(default="", role=LOCATION)
    """Name of the job and of the files; empty takes the training's."""
    nodes: int = field(default=1, ge=1, le=100_000, role=EXECUTION, unit="hosts")
    """Hosts."""
    ranks_per_node: int = field(default=8, ge=1, le=1_024, role=EXECUTION, unit="ranks")
    """Ranks on each host, one per device."""
    scheduler: SlurmSpec | KubernetesSpec = field(default=SlurmSpec(), role=EXECUTION)
    """What the scheduler is asked for."""
    restarts: int = field(default=3, ge=0, le=1_000, role=EXECUTION)
    """Times that all ranks are started again where they are, after one died."""
    requeues: int = field(default=100, ge=0, le=100_000, role=EXECUTION)
    """Times that the scheduler starts the job again: after a time limit, a preemption or a lost host."""
    port: int = field(default=29_400, ge=1_024, le=65_535, role=EXECUTION)
    """Port of the first host where hosts meet."""
    join_seconds: int = field(default=600, ge=1, le=86_400, role=EXECUTION, unit="s")
    """Longest wait of hosts for one another when they meet."""
    time_limit_minutes: int | None = field(default=None, ge=1, le=525_600, role=EXECUTION, unit="min")
    """Longest time between two starts of the job; None leaves it to the scheduler."""
    leave_seconds: int | None = field(default=None, ge=1, le=86_400, role=EXECUTION, unit="s")
    """Longest time from a signal to the end of ranks that save; then torchrun kills them. None takes a minute
    more than ranks wait for one another (`runtime.timeout_minutes` of the training)."""
    kill_seconds: int | None = field(default=None, ge=1, le=86_400, role=EXECUTION, unit="s")
    """Time from a signal to the scheduler's kill: Slurm signals so long before the time limit, Kubernetes
    waits so long after SIGTERM. None takes a minute more than `leave_seconds`."""
    image: str | None = field(default=None, role=EXECUTION, min_length=1)
    """Container image; on Slurm by Pyxis, where None starts no container."""
    python: str | None = field(default=None, role=LOCATION, min_length=1)
    """Interpreter; None takes `python` in a container, else the one that `mm launch` runs on."""
    setup: tuple[str, ...] = field(default=(), role=EXECUTION)
    """Lines of shell on each host before the ranks, such as `source set_env.sh`."""
    environment: tuple[str, ...] = field(default=(), role=EXECUTION)
    """Variables of all ranks, each `NAME=VALUE`, beside those that the training's spec asks for."""
    threads_per_rank: int | None = field(default=None, ge=1, le=1_024, role=EXECUTION, unit="threads")
    """OMP_NUM_THREADS; None leaves it to torchrun, which takes 1."""
    folder: str | None = field(default=None, role=LOCATION, min_length=1)
    """Where the files are written, on Slurm a folder that all hosts share; None takes `launches/NAME`."""

    @property
    def world_size(self) -> int:
        """Ranks on all hosts."""
        return self.nodes * self.ranks_per_node

    def problems(self) -> Iterator[Problem]:
        """Kubernetes has an image, and lines are lines."""
        if self.image is None and isinstance(self.scheduler, KubernetesSpec):
            yield Problem("image", "is None, and Kubernetes starts containers only; name one")
        if self.image is not None and not re.fullmatch(r"[^\s'\"\\]+", self.image):
            yield Problem("image", f"must be one word, got {self.image!r}")
        for index, line in enumerate(self.environment):
            if not re.fullmatch(r"[A-Za-z_]\w*=[^\n\0]*", line):
                yield Problem(f"environment.{index}", f"must be NAME=VALUE, got {line!r}")
        for index, line in enumerate(self.setup):
            if not line.strip() or "\n" in line:
                yield Problem(f"setup.{index}", f"must be one line of shell, got {line!r}")
