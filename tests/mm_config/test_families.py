"""The Wan families and their experiments: published values, said once."""

import importlib
from pathlib import Path

import pytest

from experiments import (
    wan21_flf2v_14b,
    wan21_i2v_14b,
    wan21_t2v_1_3b,
    wan21_t2v_14b,
    wan22_distill,
    wan22_high,
    wan22_i2v,
    wan22_i2v_high,
    wan22_i2v_low,
    wan22_low,
    wan22_t2v,
    wan22_ti2v_5b,
    wan22_ti2v_5b_infer,
)
from mm_config import families, rules
from mm_config.families import wan21, wan22
from mm_config.schema.diff import diff
from mm_config.schema.fields import SEMANTIC
from mm_config.specs.diffusion import Expert, LossWeighting, SigmaTable, Solver
from mm_config.specs.family import Family
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Conditioning
from mm_config.specs.train import TrainSpec
from mm_config.specs.wan import WanTransformerSpec
from mm_config.specs.weights import ReleasedWeights

EXPERIMENTS = Path(wan22_high.__file__).parent
WAN = sorted(file.stem for file in EXPERIMENTS.glob("wan*.py"))

# Steps, shift, guidance of the high-noise and the low-noise expert, boundary, size: the official code's.
OFFICIAL = {
    "wan21.T2V_1_3B": (50, 8.0, 6.0, 6.0, None, (81, 480, 832), 16),
    "wan21.T2V_14B": (50, 5.0, 5.0, 5.0, None, (81, 480, 832), 16),
    "wan21.I2V_14B_480P": (40, 3.0, 5.0, 5.0, None, (81, 480, 832), 16),
    "wan21.I2V_14B_720P": (40, 5.0, 5.0, 5.0, None, (81, 720, 1280), 16),
    "wan21.FLF2V_14B": (50, 16.0, 5.0, 5.0, None, (81, 720, 1280), 16),
    "wan22.T2V_A14B": (40, 12.0, 4.0, 3.0, 0.875, (81, 480, 832), 16),
    "wan22.I2V_A14B": (40, 5.0, 3.5, 3.5, 0.9, (81, 720, 1280), 16),
    "wan22.TI2V_5B": (50, 5.0, 5.0, 5.0, None, (121, 704, 1280), 24),
    "wan22.T2V_A14B_DISTILLED": (4, 5.0, 1.0, 1.0, 0.875, (81, 480, 832), 16),
    "wan22.I2V_A14B_DISTILLED": (4, 5.0, 1.0, 1.0, 0.9, (81, 720, 1280), 16),
}

# Width, heads, feed-forward width, blocks, input and output channels: the published architectures.
ARCHITECTURES = {
    "wan21.T2V_1_3B": (1536, 12, 8960, 30, 16, 16),
    "wan21.T2V_14B": (5120, 40, 13824, 40, 16, 16),
    "wan21.I2V_14B_480P": (5120, 40, 13824, 40, 36, 16),
    "wan21.I2V_14B_720P": (5120, 40, 13824, 40, 36, 16),
    "wan21.FLF2V_14B": (5120, 40, 13824, 40, 36, 16),
    "wan22.T2V_A14B": (5120, 40, 13824, 40, 16, 16),
    "wan22.I2V_A14B": (5120, 40, 13824, 40, 36, 16),
    "wan22.TI2V_5B": (3072, 24, 14336, 30, 48, 48),
    "wan22.T2V_A14B_DISTILLED": (5120, 40, 13824, 40, 16, 16),
    "wan22.I2V_A14B_DISTILLED": (5120, 40, 13824, 40, 36, 16),
}


def family(name: str) -> Family:
    module, _, value = name.partition(".")
    return getattr({"wan21": wan21, "wan22": wan22}[module], value)


def test_every_family_is_in_the_tables() -> None:
    found = {
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in (wan21, wan22)
        for name, value in vars(module).items()
        if isinstance(value, Family)
    }
    assert found == OFFICIAL.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_family_holds_the_official_sampler_and_size(name: str) -> None:
    spec = family(name).infer()
    sampler = spec.sampler
    guidance = (sampler.guidance_high_noise, sampler.guidance_low_noise)
    size = (spec.num_frames, spec.height, spec.width)
    assert (sampler.steps, sampler.shift, *guidance, spec.boundary, size, spec.fps) == OFFICIAL[name]
    assert rules.problems(spec) == []


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_family_holds_the_published_architecture(name: str) -> None:
    model = family(name).model
    assert isinstance(model, WanTransformerSpec)
    sizes = (model.hidden_size, model.num_attention_heads, model.ffn_dim, model.num_layers)
    assert (*sizes, model.in_channels, model.out_channels) == ARCHITECTURES[name]


def test_only_wan21s_frame_conditioned_families_have_an_image_branch() -> None:
    with_branch = {name for name in OFFICIAL if getattr(family(name).model, "image_dim", None)}
    assert with_branch == {"wan21.I2V_14B_480P", "wan21.I2V_14B_720P", "wan21.FLF2V_14B"}
    assert {name for name in OFFICIAL if family(name).image_encoder} == with_branch


def test_both_experts_and_the_inference_of_a_family_agree_on_the_boundary_and_the_networks() -> None:
    for high, low, infer in (
        (wan22_high.SPEC, wan22_low.SPEC, wan22_t2v.SPEC),
        (wan22_i2v_high.SPEC, wan22_i2v_low.SPEC, wan22_i2v.SPEC),
    ):
        assert high.diffusion.boundary == low.diffusion.boundary == infer.boundary
        assert high.model == low.model == infer.model
        assert (high.start_from, low.start_from) == (infer.high_noise, infer.low_noise)
        assert {change.path.removeprefix("spec.") for change in diff(high, low)} == {
            "expert",
            "start_from.subfolder",
        }


def test_the_image_experts_differ_from_the_text_experts_in_what_the_family_says() -> None:
    changed = {change.path.removeprefix("spec.") for change in diff(wan22_high.SPEC, wan22_i2v_high.SPEC)}
    assert changed == {
        "model.in_channels",
        "model.conditioning",
        "diffusion.boundary",
        "start_from.name",
        "autoencoder.weights.name",
        "text_encoder.weights.name",
    }


def test_trainings_hold_mindspeeds_values() -> None:
    for experiment in (wan21_t2v_1_3b, wan21_t2v_14b, wan21_i2v_14b, wan22_low, wan22_ti2v_5b):
        spec = experiment.SPEC
        diffusion, optim = spec.diffusion, spec.optim
        assert (diffusion.shift, diffusion.weighting) == (5.0, LossWeighting.BELL)
        assert (diffusion.sigma_min, diffusion.drop_last, diffusion.num_train_timesteps) == (0.0, True, 1000)
        assert (optim.lr, spec.schedule.steps, spec.seed) == (1e-5, 5000, 1234)
        assert spec.data.caption_dropout == 0.0
        assert (spec.precision.compute.value, spec.precision.reduce.value) == ("bfloat16", "float32")


def test_distilled_networks_take_four_listed_steps_without_guidance() -> None:
    spec = wan22_distill.SPEC
    assert (spec.sampler.solver, spec.sampler.sigmas) == (Solver.EULER, SigmaTable.LISTED)
    assert spec.sampler.timesteps == (1000, 750, 500, 250)
    assert spec.distilled


def test_conditionings_of_the_experiments() -> None:
    assert wan22_i2v.SPEC.model.conditioning is Conditioning.FIRST_FRAME
    assert wan21_flf2v_14b.SPEC.model.conditioning is Conditioning.FIRST_AND_LAST_FRAME
    assert wan22_ti2v_5b_infer.SPEC.model.conditioning is Conditioning.CLEAN_FIRST_FRAME
    assert wan22_t2v.SPEC.model.conditioning is Conditioning.TEXT


@pytest.mark.parametrize("name", WAN)
def test_an_experiment_breaks_no_rule_and_names_its_weights(name: str) -> None:
    spec = importlib.import_module(f"experiments.{name}").SPEC
    assert rules.problems(spec, world_size=8 if isinstance(spec, TrainSpec) else 1) == []
    weights = spec.high_noise if isinstance(spec, InferSpec) else spec.start_from
    assert isinstance(weights, ReleasedWeights)
    assert (spec.expert if isinstance(spec, TrainSpec) else Expert.SINGLE) in Expert


def lines(file: Path) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in file.read_text().splitlines())


def test_experiments_and_families_are_short() -> None:
    assert all(lines(file) <= 60 for file in EXPERIMENTS.glob("*.py"))
    experiments = sum(lines(EXPERIMENTS / f"{name}.py") for name in WAN)
    definitions = sum(lines(file) for file in Path(families.__file__).parent.glob("wan*.py"))
    assert experiments < 500
    assert experiments + definitions < 800


def test_a_training_made_like_another_takes_over_everything_that_is_not_the_familys() -> None:
    like = wan22_high.SPEC
    made = wan21.T2V_1_3B.train(like=like, seed=7)
    changed = {change.path.split(".")[1] for change in diff(like, made) if change.role is SEMANTIC}
    assert changed == {"model", "expert", "diffusion", "start_from", "autoencoder", "text_encoder", "seed"}
    assert made.fsdp == like.fsdp
