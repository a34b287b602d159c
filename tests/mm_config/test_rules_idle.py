"""What a generation says in vain is told: prompts and experts that no step uses, samples without prompts."""

from pathlib import Path

import pytest

from experiments import tiny
from mm_config import replace, rules
from mm_config.cli.main import main
from mm_config.families import wan22
from mm_config.rules.sampling import guidance_by_step
from mm_config.specs import Expert, GenerationRequest, InferSpec, SigmaTable, Solver

HIGH, LOW = Expert.HIGH_NOISE, Expert.LOW_NOISE
NEVER = "is never read: no step has a guidance above 1"


def listed(*timesteps: int, **changes: object) -> InferSpec:
    """A generation that visits just these timesteps: at a shift of 1 they are told as they are."""
    sampler = {"steps": len(timesteps), "shift": 1.0, "solver": Solver.EULER, "sigmas": SigmaTable.LISTED}
    values = {f"sampler.{name}": value for name, value in {**sampler, "timesteps": timesteps}.items()}
    spec = replace(tiny.SPEC, {"boundary": 0.875, **values})
    return replace(spec, {name.replace("__", "."): value for name, value in changes.items()})


def idle(spec: InferSpec, *requests: GenerationRequest) -> list[str]:
    return [str(one) for one in rules.idle_settings(spec, requests or None)]


def test_each_step_is_of_the_expert_at_whose_levels_it_begins() -> None:
    spec = listed(1000, 876, 875, 874, 1, sampler__guidance_high_noise=4.0, sampler__guidance_low_noise=2.0)
    assert guidance_by_step(spec) == [(HIGH, 4.0), (HIGH, 4.0), (HIGH, 4.0), (LOW, 2.0), (LOW, 2.0)]
    assert idle(spec) == []


@pytest.mark.parametrize(
    ("timesteps", "name", "where"),
    [((1000, 875), "low_noise", "at or above"), ((874, 400, 1), "high_noise", "below")],
)
def test_an_expert_without_a_step_is_told(timesteps: tuple[int, ...], name: str, where: str) -> None:
    assert idle(listed(*timesteps)) == [
        f"spec.{name}: is used by no step: all {len(timesteps)} begin {where} spec.boundary 0.875, so its "
        f"weights, its adapters and spec.sampler.guidance_{name} change nothing"
    ]


UNGUIDED = {"sampler__guidance_high_noise": 1.0, "sampler__guidance_low_noise": 1.0}


def test_a_negative_prompt_that_no_step_reads_is_told() -> None:
    spec = listed(1000, 500, negative_prompt="blur", **UNGUIDED)
    own, empty, unsaid = (GenerationRequest(prompt="x", negative_prompt=one) for one in ("a", "", None))
    older = replace(empty, "negative_prompt_may_be_empty", False)
    of_spec = f"spec.negative_prompt: {NEVER}"
    assert idle(spec) == [of_spec]
    assert idle(spec, empty) == []
    assert idle(spec, own) == [f"request 0.negative_prompt: {NEVER}"]
    assert idle(spec, empty, own, unsaid) == [of_spec, f"request 1.negative_prompt: {NEVER}"]
    assert idle(spec, older) == [of_spec]
    assert idle(replace(spec, "negative_prompt", ""), unsaid, empty) == []
    assert idle(replace(spec, "sampler.guidance_low_noise", 1.5), own, unsaid) == []


def test_guidance_of_an_expert_that_no_step_uses_reads_no_negative_prompt() -> None:
    spec = listed(1000, negative_prompt="blur", sampler__guidance_high_noise=1.0)
    assert [line.split(":")[0] for line in idle(spec)] == ["spec.low_noise", "spec.negative_prompt"]


def test_guidance_of_a_second_expert_that_is_not_there_is_told() -> None:
    single = {"boundary": None, "low_noise": None, "sampler.guidance_high_noise": 5.0}
    spec = replace(tiny.SPEC, single)
    for low in (3.0, 5.0):  # The default, and what families and importers of single networks say.
        assert idle(replace(spec, "sampler.guidance_low_noise", low)) == []
    assert idle(replace(spec, "sampler.guidance_low_noise", 2.0)) == [
        "spec.sampler.guidance_low_noise: is 2.0, which a single network doesn't use; its own is "
        "spec.sampler.guidance_high_noise"
    ]


def test_families_say_nothing_in_vain_but_distilled_ones_their_negative_prompt() -> None:
    for name in ("T2V_A14B", "I2V_A14B", "TI2V_5B"):
        assert idle(getattr(wan22, name).infer()) == []
    assert idle(wan22.T2V_A14B_DISTILLED.infer()) == [f"spec.negative_prompt: {NEVER}"]


def test_a_dry_run_tells_it_and_that_there_is_nothing_to_make(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = listed(1000, 500, negative_prompt="blur", samples__prompts=(), **UNGUIDED)
    main(spec, ["tiny.py", "--dry-run", "--runs-dir", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert "  videos      none: spec.samples.prompts is empty, so this run would end at once" in lines
    assert lines[lines.index("said in vain") + 1] == f"  spec.negative_prompt: {NEVER}"
    main(tiny.SPEC, ["tiny.py", "--dry-run", "--runs-dir", str(tmp_path)])
    out = capsys.readouterr().out
    assert "said in vain" not in out and "  videos  " not in out
