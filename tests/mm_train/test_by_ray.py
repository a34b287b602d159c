"""Features computed by a Ray cluster of two nodes, in a network namespace of its own."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_config import dump, replace
from mm_config.cli.app import app
from mm_config.options.run_options import RunOptions
from mm_config.specs.data import Cache
from mm_config.specs.train import TrainSpec
from mm_train.features.precomputed import read_precomputed
from mm_train.precomputing import precompute_features

CLUSTER = """
import os, sys
import torch
from ray.cluster_utils import Cluster
from mm_config.cli.app import app

torch.set_num_threads(1)
memory = 150 * 2**20
cluster = Cluster(
    initialize_head=True,
    head_node_args={"num_cpus": 1, "object_store_memory": memory, "include_dashboard": False},
)
cluster.add_node(num_cpus=1, object_store_memory=memory)
os.environ["RAY_ADDRESS"] = cluster.address
status = app(sys.argv[1:])
sys.stdout.flush()
os._exit(status)
"""


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[str]:
    """A network of its own: Ray otherwise talks over the machine's address."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    name = f"mm-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces can't be made here")
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield name
    left = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True)
    for pid in left.stdout.split():
        subprocess.run(["kill", "-9", pid], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.slow
def test_two_nodes_make_what_one_process_makes(
    small: TrainSpec, options: RunOptions, tmp_path: Path, namespace: str
) -> None:
    spec = replace(small, "data.cache", Cache.NONE)
    precompute_features(spec, options, tmp_path / "alone")
    dump(spec, tmp_path / "spec.json")
    (tmp_path / "cluster.py").write_text(CLUSTER)
    words = ["data", "precompute", str(tmp_path / "spec.json"), "--out", str(tmp_path / "shared")]
    command = [sys.executable, str(tmp_path / "cluster.py"), *words, "--engine", "ray"]
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *command, "--runs-dir", str(options.runs_dir.absolute())],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "8 shares encoded by 2 workers on 2 nodes" in done.stdout
    assert read_precomputed(tmp_path / "shared").digest == read_precomputed(tmp_path / "alone").digest


def test_ray_needs_a_folder_that_nodes_share_and_its_extra(
    small: TrainSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dump(replace(small, "data.cache", Cache.NONE), tmp_path / "spec.json")
    words = ["data", "precompute", str(tmp_path / "spec.json"), "--engine", "ray"]
    assert app(words) == 2
    assert "--engine: is ray, which encodes into a folder that all nodes share; name it by --out" in (
        capsys.readouterr().err
    )
    monkeypatch.setitem(sys.modules, "ray", None)
    assert app([*words, "--out", str(tmp_path / "out"), "--runs-dir", str(tmp_path)]) == 2
    assert "--engine: needs Ray, which is not installed; pip install 'mm-train[ray]'" in (
        capsys.readouterr().err
    )
