"""Short names of the fields that are changed most, one closed table per kind of spec.

`--spec.lr` stands for `--spec.optim.lr`. Files, diffs and messages use canonical paths only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mm_config.schema.decorator import tag_of

_RUNTIME = {"device": "runtime.device", "build_missing": "runtime.build_missing"}

_TABLES: Mapping[str, Mapping[str, str]] = {
    "train": {
        "lr": "optim.lr",
        "weight_decay": "optim.weight_decay",
        "steps": "schedule.steps",
        "warmup_steps": "schedule.warmup_steps",
        "batch_size": "data.batch_size",
        "workers": "data.workers",
        "num_frames": "data.num_frames",
        "height": "data.height",
        "width": "data.width",
        "fps": "data.fps",
        "micro_batch_size": "runtime.micro_batch_size",
        **_RUNTIME,
    },
    "infer": {
        "steps": "sampler.steps",
        "shift": "sampler.shift",
        "guidance_high_noise": "sampler.guidance_high_noise",
        "guidance_low_noise": "sampler.guidance_low_noise",
        "prompts": "samples.prompts",
        "seeds": "samples.seeds",
        "batch_size": "runtime.batch_size",
        **_RUNTIME,
    },
}


def aliases_of(kind: type[Any]) -> Mapping[str, str]:
    """Alias to canonical path, both without the leading `spec.`, of a root spec's class."""
    return _TABLES.get(tag_of(kind), {})
