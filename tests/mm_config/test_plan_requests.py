"""What a plan counts of a video that is asked for: its size, its steps, and what comes after decoding."""

from pathlib import Path

import attrs
import pytest

from experiments import tiny
from mm_config import dump, replace
from mm_config.families import wan22
from mm_config.planning.plan import plan
from mm_config.schema.errors import UserError
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.requests import GenerationRequest, RequestSetting
from mm_config.specs.serving import GuidanceMode, Residency, ResidencySpec
from mm_config.specs.stages import LanczosUpscaleSpec
from tests.mm_config.mm_in_process import TINY, mm

WAN: InferSpec = wan22.T2V_A14B.infer(dtype=Dtype.BFLOAT16)
FOX = GenerationRequest(prompt="a fox")


def test_a_given_video_leaves_the_steps_that_its_strength_says() -> None:
    """By hand: 40 steps, both guided. 0.6 leaves 24 of them, 0.03 one."""
    assert WAN.sampler.steps == 40
    whole = plan(WAN).work
    for strength, steps in ((1.0, 40), (0.6, 24), (0.03, 1)):
        work = plan(WAN, request=attrs.evolve(FOX, strength=strength)).work
        assert work.step_flops == 2 * steps * whole.forward_flops
    # 26 steps of the high-noise expert come first, so 0.5 leaves 6 of them and 14 of the other's.
    unguided = replace(WAN, "sampler.guidance_high_noise", 1.0)
    assert plan(unguided, request=attrs.evolve(FOX, strength=0.5)).work.step_flops == 34 * whole.forward_flops
    with pytest.raises(UserError, match=r"request.strength: 0.01 of 40 steps is less than one"):
        plan(WAN, request=attrs.evolve(FOX, strength=0.01))


def test_traffic_and_encoding_follow_a_given_video() -> None:
    residency = ResidencySpec(experts=Residency.LAYERWISE, encoders=Residency.SWAP)
    layerwise = replace(WAN, {"runtime.residency": residency, "runtime.guidance": GuidanceMode.SEQUENTIAL})
    whole, half = plan(layerwise), plan(layerwise, request=attrs.evolve(FOX, strength=0.5))
    assert [flow.bytes for flow in half.traffic] == [flow.bytes // 2 for flow in whole.traffic]
    assert whole.memory.phases["encoding"]["autoencoder"] == 0
    swapped = replace(layerwise, {"height": 2160, "width": 3840})
    # The frames of a large video take more than the text encoder.
    assert plan(swapped, request=attrs.evolve(FOX, strength=0.5)).memory.phases["encoding"]["autoencoder"] > 0


def test_what_a_request_chooses_is_counted_and_what_it_may_not_is_refused() -> None:
    made = plan(WAN, request=attrs.evolve(FOX, num_frames=41, height=320, width=640))
    assert made.work.tokens == 11 * 20 * 40
    assert made.notes[0] == "counted for 41 frames of 640x320 in 40 steps"
    with pytest.raises(UserError, match=r"request.steps: is 8, but spec.requests_may_set allows"):
        plan(WAN, request=attrs.evolve(FOX, steps=8))
    free = replace(WAN, "requests_may_set", (RequestSetting.STEPS,))
    assert (
        plan(free, request=attrs.evolve(FOX, steps=8)).work.step_flops == 16 * plan(free).work.forward_flops
    )


def test_stages_after_decoding_are_counted_where_they_work() -> None:
    """Four frames at a time, 9 bytes for each of 3 colours of 960 x 1664 pixels after a factor of 2."""
    twice = replace(WAN, "after_decode", (LanczosUpscaleSpec(factor=2),))
    held = (4 + 4 + 1) * 4 * 3 * 960 * 1664
    found, plain = plan(twice), plan(WAN)
    assert found.memory.host == {**plain.memory.host, "after_decode": held}
    assert found.memory.phases == plain.memory.phases
    on_cpu, without = (plan(replace(one, "runtime.device", "cpu")).memory for one in (twice, WAN))
    assert "after_decode" not in on_cpu.host
    grown = on_cpu.phases["decoding"]["activations"] - without.phases["decoding"]["activations"]
    assert grown == held
    assert "stages in the host's memory make 81 frames of 1664x960 at 16 fps of it" in found.notes


def test_mm_plan_counts_the_costliest_of_a_files_requests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "asked.json")
    dump(tiny.SPEC, file, requests=(FOX, attrs.evolve(FOX, num_frames=33), attrs.evolve(FOX, num_frames=5)))
    assert "counted for 33 frames of 64x64 in 20 steps" in mm(capsys, "plan", file)
    said = mm(capsys, "plan", file, "--strength", "0.25")
    assert "in 20 steps, of which strength 0.25" in said and "the last 5" in said.replace("\n    ", " ")
    assert "takes the last 10" in mm(capsys, "plan", TINY, "--strength", "0.5").replace("\n    ", " ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((TINY, "--strength", "0.04"), "request.strength: 0.04 of 20 steps is less than one; at least 0.05"),
        (
            (TINY, "--strength", "2"),
            "--strength: expected a number above 0 and at most 1, such as 0.45, got '2'",
        ),
        (
            ("experiments/tiny_high.py", "--strength", "0.5"),
            "--strength: is a generation's; a training has none",
        ),
        (
            (TINY, "--search", "--strength", "0.5"),
            "--strength: has no part in a search of layouts; leave it out",
        ),
    ],
)
def test_mistakes_are_a_line(
    words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mm(capsys, "plan", *words, status=2).splitlines() == [expected]
