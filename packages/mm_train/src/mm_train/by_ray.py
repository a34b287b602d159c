"""Clips and captions encoded by the nodes of a Ray cluster, through Ray Data.

The work is cut into shares as it is among ranks; each worker builds the encoders once and takes one share
after another. Features are written into a folder that all nodes share, whole shards at a time: what a node
that is lost had finished is there, and its share goes to another one, which makes the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from mm_config.console import say
from mm_config.schema import Problem, UserError
from mm_data import Bad

SHARES_PER_WORKER = 4
"""So that a slow node holds up the others little."""

Share = Callable[[tuple[int, int]], list[Bad]]
"""Encodes a share of so many, and returns the clips that can't be read."""


def encode_by_ray(build: Callable[[], Share]) -> list[Bad]:
    """Encodes all shares on the cluster that RAY_ADDRESS names, or on this machine's devices.

    Args:
        build: Makes on a worker what encodes shares there; it is pickled.

    Raises:
        UserError: Ray isn't installed, or a worker failed; its error is told.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.data  # pyright: ignore[reportMissingImports]
        from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        message = "needs Ray, which is not installed; pip install 'mm-train[ray]'"
        raise UserError(Problem("--engine", message)) from error

    class Worker:
        """Encodes shares, with encoders of its own."""

        def __init__(self) -> None:
            self.encode = build()

        def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
            (number,), count = batch["id"].tolist(), shares
            bad = [attrs.asdict(one) for one in self.encode((number, count))]
            return {"node": [ray.get_runtime_context().get_node_id()], "bad": [bad]}

    started = not ray.is_initialized()
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    try:
        resources = ray.cluster_resources()
        devices = int(resources.get("GPU", 0))
        workers = devices or max(int(resources.get("CPU", 1)), 1)
        shares = workers * SHARES_PER_WORKER
        ray.data.DataContext.get_current().enable_progress_bars = False
        # Items need no task of their own to be read, for which busy workers would leave no processor.
        items = ray.data.from_items([{"id": number} for number in range(shares)], override_num_blocks=shares)
        pool = ray.data.ActorPoolStrategy(size=workers)
        encoded = items.map_batches(Worker, batch_size=1, compute=pool, num_gpus=1 if devices else 0)
        rows = encoded.take_all()
    except RayError as error:
        raise UserError(Problem("--engine", f"ray: {str(error).splitlines()[-1][:300]}")) from error
    finally:
        if started:
            ray.shutdown()
    nodes = len({row["node"] for row in rows})
    say(f"{shares} shares encoded by {workers} workers on {nodes} nodes")
    return [Bad(**one) for row in rows for one in row["bad"]]
