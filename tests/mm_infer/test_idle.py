"""What is told to be in vain is what the loop over the steps does not use, and only that."""

import random

import attrs
import pytest
import torch
from torch import Tensor

from mm_config import replace, rules
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs import Expert, GenerationRequest, InferSpec, SigmaTable, Solver
from mm_config.specs.parallel import CompileMode, CompileSpec
from mm_infer import load
from mm_infer.denoise import denoise
from mm_infer.passes import by_networks
from mm_infer.requests import check_requests

TABLES = (SigmaTable.WAN_OFFICIAL, SigmaTable.DIFFUSERS, SigmaTable.FULL_RANGE, SigmaTable.DIFFUSERS_EULER)


def used_by(spec: InferSpec) -> tuple[set[Expert], bool]:
    """The experts that the loop calls, and whether it ever hands on the negative prompt."""
    called: set[Expert] = set()
    texts: set[float] = set()

    def network_of(expert: Expert):
        def network(latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
            called.add(expert)
            texts.update(text.flatten().tolist())
            return torch.zeros_like(latents)

        return network

    networks = {expert: network_of(expert) for expert in Expert}
    noise, text, negative = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1), torch.full((1, 1, 1), -1.0)
    denoise(noise, text, negative, by_networks(networks), spec.sampler, spec.boundary)
    return called, -1.0 in texts


def test_what_is_told_is_what_the_loop_does_not_use(random_spec: InferSpec) -> None:
    draw = random.Random(7)
    told: set[str] = set()
    for _ in range(200):
        boundary = draw.choice([None, 0.01, 0.5, 0.875, 0.99])
        changes = {
            "boundary": boundary,
            "low_noise": None if boundary is None else random_spec.low_noise,
            "negative_prompt": "blur",
            "sampler.steps": draw.randint(1, 6),
            "sampler.shift": draw.choice([0.01, 1.0, 3.0, 12.0]),
            "sampler.solver": draw.choice([Solver.EULER, Solver.UNIPC]),
            "sampler.sigmas": draw.choice(TABLES),
            "sampler.guidance_high_noise": draw.choice([1.0, 2.0]),
            "sampler.guidance_low_noise": draw.choice([1.0, 3.0]),
        }
        spec = replace(random_spec, changes)
        called, reads = used_by(spec)
        idle = {one.path for one in rules.idle_settings(spec)}
        told |= idle
        assert ("spec.negative_prompt" in idle) is not reads
        for expert, path in ((Expert.HIGH_NOISE, "spec.high_noise"), (Expert.LOW_NOISE, "spec.low_noise")):
            assert (path in idle) is (boundary is not None and expert not in called)
    assert told >= {"spec.negative_prompt", "spec.low_noise", "spec.high_noise"}


def test_settings_of_a_compilation_that_is_off_are_told(random_spec: InferSpec) -> None:
    how = CompileSpec(mode=CompileMode.REDUCE_OVERHEAD)
    told = {one.path for one in rules.idle_settings(replace(random_spec, "runtime.compile", how))}
    assert "spec.runtime.compile.mode" in told
    on = attrs.evolve(how, enabled=True)
    told = {one.path for one in rules.idle_settings(replace(random_spec, "runtime.compile", on))}
    assert "spec.runtime.compile.mode" not in told


def test_loading_and_calling_tell_it_once(
    spec: InferSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    guidance = {"sampler.guidance_high_noise": 1.0, "sampler.guidance_low_noise": 1.0}
    pipeline = load(replace(spec, {**guidance, "sampler.steps": 1, "negative_prompt": "blur"}), options)
    never = "is never read: no step has a guidance above 1"
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("spec.")]
    assert [line.split(": ")[0] for line in said] == ["spec.low_noise", "spec.negative_prompt"]
    pipeline([GenerationRequest(prompt="x", negative_prompt="blur"), "a red circle moving up"])
    assert f"request 0.negative_prompt: {never}" in capsys.readouterr().out.splitlines()


def test_no_requests_are_refused_by_where_they_are_missing(spec: InferSpec) -> None:
    for named, path in (
        (spec, "requests"),
        (replace(spec, "samples.prompts", ()), "spec.samples.prompts"),
    ):
        with pytest.raises(UserError, match=f"^{path}: is empty: there is no video to make$"):
            check_requests(named, ())
