"""The memory that `mm plan` tells, against the storages that are alive in a real training step."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

import mm_train
import mm_train.training
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.planning.plan import plan
from mm_config.specs.dtype import Dtype
from mm_config.specs.parallel import Recompute
from mm_config.specs.train import TrainSpec
from tests.mm_train.alive import Alive

WIDE = {
    # Tokens enough for the fused forms of norms, which small networks don't take.
    "model.patch_size": (1, 1, 1),
    "model.hidden_size": 64,
    "model.ffn_dim": 256,
    "model.num_layers": 4,
    "data.batch_size": 4,
    "schedule.steps": 2,
    "schedule.warmup_steps": 0,
}


@pytest.mark.parametrize(
    ("mode", "compute", "micro"),
    [
        (Recompute.NONE, Dtype.FLOAT32, None),
        (Recompute.NONE, Dtype.FLOAT32, 2),
        (Recompute.NONE, Dtype.BFLOAT16, None),
        (Recompute.FULL, Dtype.FLOAT32, None),
        (Recompute.FULL, Dtype.FLOAT32, 2),
        (Recompute.FULL, Dtype.BFLOAT16, 2),
    ],
)
def test_a_step_takes_what_is_planned(
    mode: Recompute,
    compute: Dtype,
    micro: int | None,
    small: TrainSpec,
    options: RunOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit, measured = mm_train.training.fit, list[Alive]()

    def fit_measured(training: Any, *args: Any) -> Generator[Any, bool, Any]:
        running = fit(training, *args)
        step = next(running)  # The first step makes the moments.
        measured.append(Alive(training.network, training.optimizer))
        with measured[0]:
            step = running.send((yield step))
        yield step
        running.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(mm_train.training, "fit", fit_measured)
    changes = {"recompute.mode": mode, "precision.compute": compute, "runtime.micro_batch_size": micro}
    spec = replace(small, {**WIDE, **changes})
    with pytest.raises(KeyboardInterrupt):
        mm_train.train(spec, options)
    planned, most = dict(plan(spec, 1).memory.phases["training"]), measured[0].most
    states = {part: planned.pop(part) for part in ("parameters", "gradients", "optimizer")}
    assert {part: most[part] for part in states} == pytest.approx(states, rel=0.01)
    assert most["others"] == pytest.approx(sum(planned.values()), rel=0.1)
    # Without accumulation the gradients come as the activations go: the plan has room for both.
    assert most["total"] < 1.1 * (sum(states.values()) + sum(planned.values()))
