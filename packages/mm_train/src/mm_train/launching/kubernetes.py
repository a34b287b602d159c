"""A launch as a manifest for Kubernetes: the experiment's file, and one JobSet with a pod for each host."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from mm_train.launching.hosts import Launch
from mm_train.launching.specs import KubernetesSpec

_EXPERIMENTS = "/mm-launch"
"""Where pods find the experiment's file."""
_HOSTS = "hosts"
"""Name of the replicated job and of its container."""
_SHARED_MEMORY_GB = 16
"""Of /dev/shm, which counts as memory of the pod only as far as it is used."""


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def manifest(launch: Launch, kubernetes: KubernetesSpec, experiment: str) -> str:
    """The text of the manifest.

    Args:
        launch: What is launched.
        kubernetes: What Kubernetes is asked for.
        experiment: Text of the experiment's file.
    """
    files: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(launch.name, kubernetes),
        "data": {launch.experiment.name: experiment},
    }
    jobset: dict[str, Any] = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": _metadata(launch.name, kubernetes),
        "spec": {
            "network": {"enableDNSHostnames": True, "subdomain": launch.name},
            "failurePolicy": {
                "maxRestarts": launch.spec.requeues,
                "rules": [
                    {
                        "name": "mistake",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {"name": _HOSTS, "replicas": 1, "template": {"spec": _job(launch, kubernetes)}}
            ],
        },
    }
    if kubernetes.queue is not None:
        jobset["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": kubernetes.queue}
    return yaml.dump_all([files, jobset], Dumper=_Dumper, sort_keys=False, width=1_000)


def _metadata(name: str, kubernetes: KubernetesSpec) -> dict[str, Any]:
    return (
        {"name": name} if kubernetes.namespace is None else {"name": name, "namespace": kubernetes.namespace}
    )


def _job(launch: Launch, kubernetes: KubernetesSpec) -> dict[str, Any]:
    """One pod for each host; the JobSet makes all anew when one has failed, unless by a mistake of ours."""
    spec = launch.spec
    mistake = {"containerName": _HOSTS, "operator": "In", "values": [2]}
    job: dict[str, Any] = {
        "completions": spec.nodes,
        "parallelism": spec.nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": mistake}]},
        "template": {"spec": _pod(launch, kubernetes)},
    }
    if spec.time_limit_minutes is not None:
        job["activeDeadlineSeconds"] = 60 * spec.time_limit_minutes
    return job


def _pod(launch: Launch, kubernetes: KubernetesSpec) -> dict[str, Any]:
    spec = launch.spec
    limits: dict[str, Any] = {}
    if kubernetes.device is not None:
        limits[kubernetes.device] = spec.ranks_per_node
    if kubernetes.cpus is not None:
        limits["cpu"] = kubernetes.cpus
    if kubernetes.memory_gb is not None:
        limits["memory"] = f"{kubernetes.memory_gb}G"
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": launch.kill_seconds,
        "containers": [
            {
                "name": _HOSTS,
                "image": spec.image,
                "command": ["bash", "-c", _host(launch)],
                "workingDir": kubernetes.mount,
                "env": [
                    _from_pod("JOB", "metadata.labels['batch.kubernetes.io/controller-uid']"),
                    _from_pod("JOBSET", "metadata.labels['jobset.sigs.k8s.io/jobset-uid']"),
                ],
                "ports": [{"containerPort": spec.port, "protocol": "TCP"}],
                "resources": {"limits": limits},
                "volumeMounts": [
                    {"name": "shared", "mountPath": kubernetes.mount},
                    {"name": "experiments", "mountPath": _EXPERIMENTS},
                    {"name": "memory", "mountPath": "/dev/shm"},
                ],
            }
        ],
        "volumes": [
            {"name": "shared", "persistentVolumeClaim": {"claimName": kubernetes.claim}},
            {"name": "experiments", "configMap": {"name": launch.name}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": f"{_SHARED_MEMORY_GB}G"}},
        ],
    }


def _from_pod(variable: str, field: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": field}}}


def _host(launch: Launch) -> str:
    """What a pod runs: torchrun takes the place of the shell, so that SIGTERM reaches it."""
    head = f"{launch.name}-{_HOSTS}-0-0.{launch.name}"
    experiment = f"{_EXPERIMENTS}/{launch.experiment.name}"
    return "\n".join(
        [
            "set -u",
            "trap 'exit 143' TERM  # the first process of a container has to say so itself",
            f"shared={shlex.quote(str(launch.runs_dir))}/.shared-$JOB",
            "first=false",
            '[ "$JOB_COMPLETION_INDEX" = 0 ] && first=true && mkdir -p "${shared%/*}" && : > "$shared"',
            f'for _ in {{1..{launch.spec.join_seconds}}}; do [ -e "$shared" ] && break; sleep 1; done',
            'if [ ! -e "$shared" ]; then',
            '    echo "$HOSTNAME does not see the runs folder ${shared%/*}: all pods must share it" >&2',
            "    exit 2",
            "fi",
            *launch.preparing(),
            *launch.torchrun(f"{launch.name}-$JOBSET", head, experiment),
            "",
        ]
    )
