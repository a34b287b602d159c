"""Valid specs to break rules of, and what is found when they are broken."""

from __future__ import annotations

from typing import Any

from experiments import tiny, tiny_high
from mm_config import problems, replace
from mm_config.families import wan21, wan22
from mm_config.specs.data import DataSpec
from mm_config.specs.datasets import ManifestSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.dtype import Dtype
from mm_config.specs.optim import ScheduleSpec
from mm_config.specs.train import PrecisionSpec

INFER = tiny.SPEC
TRAIN = replace(
    tiny_high.SPEC,
    {
        "model.hidden_size": 192,
        "diffusion.shift": 5.0,
        "diffusion.boundary": 0.875,
        "data.batch_size": 32,
        "schedule.warmup_steps": 5,
    },
)

_COMMON: dict[str, Any] = {
    "data": DataSpec(dataset=ManifestSpec(name="clips"), batch_size=8),
    "schedule": ScheduleSpec(steps=1000),
    "precision": PrecisionSpec(compute=Dtype.BFLOAT16),
}
WAN_1_3B = wan21.T2V_1_3B.train(**_COMMON)
WAN_I2V = wan21.I2V_14B_480P.train(**_COMMON)
WAN_FLF2V = wan21.FLF2V_14B.train(**_COMMON)
WAN_5B = wan22.TI2V_5B.train(**{**_COMMON, "data": replace(_COMMON["data"], {"height": 704, "width": 1280})})
WAN_HIGH = wan22.T2V_A14B.train(Expert.HIGH_NOISE, **_COMMON)
WAN_T2V = wan22.T2V_A14B.infer(dtype=Dtype.BFLOAT16)
WAN_DISTILLED = wan22.T2V_A14B_DISTILLED.infer(dtype=Dtype.BFLOAT16)
WAN_SINGLE = wan21.T2V_1_3B.infer(dtype=Dtype.BFLOAT16)
ALL = (
    INFER,
    TRAIN,
    WAN_1_3B,
    WAN_I2V,
    WAN_FLF2V,
    WAN_5B,
    WAN_HIGH,
    WAN_T2V,
    WAN_DISTILLED,
    WAN_SINGLE,
)


def found(spec: Any, changes: dict[str, Any], world_size: int | None = None) -> dict[str, str]:
    """The problems of a changed spec, by path; two of one path fail the test."""
    listed = problems(replace(spec, changes) if changes else spec, world_size)
    by_path = {problem.path: problem.message for problem in listed}
    assert len(by_path) == len(listed), listed
    return by_path


def only(spec: Any, changes: dict[str, Any], path: str, *parts: str, world_size: int | None = None) -> None:
    """Asserts that a change breaks one rule, at a path, and that the message holds the parts."""
    wrong = found(spec, changes, world_size)
    assert wrong.keys() == {f"spec.{path}"}
    (message,) = wrong.values()
    for part in parts:
        assert part in message
