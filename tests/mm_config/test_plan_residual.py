"""What a float32 residual stream costs: two bytes more for each of its values that is kept."""

import attrs

from mm_config.families import wan21, wan22
from mm_config.planning.plan import plan
from mm_config.specs.data import DataSpec, PrecomputedSpec
from mm_config.specs.datasets import ManifestSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.dtype import Dtype
from mm_config.specs.optim import ScheduleSpec
from mm_config.specs.train import PrecisionSpec

STREAM_14B = 21 * 30 * 52 * 5120
"""Values of 81 frames of 480x832: latent frames, tokens along height and width, and the model's width."""


def test_a_generation_holds_two_streams_of_one_block_for_each_branch_of_guidance() -> None:
    spec = wan22.T2V_A14B.infer(dtype=Dtype.BFLOAT16)
    narrow, wide = (
        plan(attrs.evolve(spec, float32_residual=on)).memory.phases["denoising"] for on in (False, True)
    )
    assert wide["activations"] - narrow["activations"] == 2 * 2 * 2 * STREAM_14B
    assert {**wide, "activations": 0} == {**narrow, "activations": 0}


def test_training_keeps_three_streams_of_a_block_and_the_input_of_a_recomputed_one() -> None:
    spec = wan21.T2V_14B.train(
        Expert.SINGLE,
        data=DataSpec(
            dataset=ManifestSpec(name="x"), batch_size=8, precomputed=PrecomputedSpec(name="features")
        ),
        schedule=ScheduleSpec(steps=10),
        precision=PrecisionSpec(compute=Dtype.BFLOAT16),
    )
    precision = attrs.evolve(spec.precision, float32_residual=True)
    narrow, wide = (
        plan(one, 8).memory.activations_by_recompute
        for one in (spec, attrs.evolve(spec, precision=precision))
    )
    more = {mode: wide[mode] - size for mode, size in narrow.items()}
    assert more == {
        "none": 2 * 40 * 3 * STREAM_14B,
        "full": 2 * (3 + 40) * STREAM_14B,
        "selective": 2 * (3 + 40) * STREAM_14B,
    }
