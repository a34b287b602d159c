"""The implementation of attention is chosen once, said, recorded, and refused where it is not there."""

import json

import pytest

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.parallel import AttentionImpl
from mm_config.specs.train import TrainSpec


def test_the_forms_of_operations_are_said_and_recorded(
    small: TrainSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = []
    for asked, taken in ((AttentionImpl.AUTO, "sdpa"), (AttentionImpl.REFERENCE, "reference")):
        spec = replace(small, {"schedule.steps": 3, "runtime.attention": asked})
        result = mm_train.train(spec, options)
        recorded = json.loads((result.run_dir / "provenance.json").read_text("utf-8"))["ops"]
        assert recorded["attention"] == taken
        assert set(recorded) == {"attention", "rms_norm", "rotate", "modulate", "gate_residual"}
        assert f"cpu with attention {taken}, rms_norm {recorded['rms_norm']}" in capsys.readouterr().out
        losses.append(result.loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_the_device_has_not_is_refused_before_anything_is_made(
    small: TrainSpec, options: RunOptions
) -> None:
    changed = replace(small, {"runtime.device": "auto", "runtime.attention": AttentionImpl.NPU})
    with pytest.raises(
        UserError, match=r"attention: is npu, which is not available on .*: auto, .*reference"
    ):
        mm_train.train(changed, options)
    assert not (options.runs_dir / small.name).exists()
