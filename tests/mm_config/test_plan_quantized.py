"""What `mm plan` counts for matrices of few bits, by hand."""

from math import prod

import pytest

from mm_config.families.wan21 import WIDTH_14B
from mm_config.planning.plan import plan
from mm_config.specs.serving import QuantFormat, QuantizationSpec
from tests.mm_config.test_plan_memory import EXPERT_14B, generation


@pytest.mark.parametrize(
    ("form", "group", "bytes_each"),
    [
        (QuantFormat.FP8, None, 1.0),
        (QuantFormat.NF4, None, 0.5),
        (QuantFormat.INT8, 64, 1 + 4 / 64),
        # As torchao stores them: a scale of 1 byte for 32 values, or for 16.
        (QuantFormat.MXFP8, 32, 1 + 1 / 32),
        (QuantFormat.MXFP4, 32, 0.5 + 1 / 32),
        (QuantFormat.NVFP4, 16, 0.5 + 1 / 16),
    ],
)
def test_quantised_matrices_take_their_bits(form: QuantFormat, group: int | None, bytes_each: float) -> None:
    shapes = WIDTH_14B.parameter_shapes()
    inside = [one for name, one in shapes.items() if name.startswith("blocks.") and len(one) == 2]
    matrices, rows = sum(map(prod, inside)), sum(shape[0] for shape in inside)
    scales = 4 * rows if group is None else 0
    quantization = QuantizationSpec(format=form, group_size=group)
    found = plan(generation(quantization=quantization)).memory.phases["denoising"]["parameters"]
    assert found == pytest.approx(2 * (EXPERT_14B - (2 - bytes_each) * matrices + scales), rel=1e-6)
