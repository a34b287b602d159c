"""The work of a step and of a video agrees with the worked numbers of the published Wan models."""

import json
from typing import Any

import attrs
import pytest

import mm_models
from experiments import tiny, tiny_high
from mm_config import replace
from mm_config.families import wan21, wan22
from mm_config.families.wan21 import WIDTH_1_3B, WIDTH_14B
from mm_config.planning.plan import Plan, plan
from mm_config.schema.decorator import spec
from mm_config.schema.errors import UserError
from mm_config.specs import BucketSpec, DataSpec, ManifestSpec
from mm_config.specs.diffusion import Expert, SamplerSpec, SigmaTable
from mm_config.specs.dtype import Dtype
from mm_config.specs.family import Family
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import ModelSpec
from mm_config.specs.lora import LoraSpec
from mm_config.specs.optim import ScheduleSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.train import PrecisionSpec, TrainSpec

FAMILIES = {
    name: value
    for module in (wan21, wan22)
    for name, value in vars(module).items()
    if isinstance(value, Family)
}


def training(
    family: Family, frames: int = 81, height: int = 480, width: int = 832, batch: int = 1
) -> TrainSpec:
    return family.train(
        Expert.SINGLE if family.boundary is None else Expert.HIGH_NOISE,
        data=DataSpec(
            dataset=ManifestSpec(name="x"),
            batch_size=batch,
            num_frames=frames,
            height=height,
            width=width,
        ),
        schedule=ScheduleSpec(steps=10),
        precision=PrecisionSpec(compute=Dtype.BFLOAT16),
    )


# Size, tokens, PFLOP forward and in all, percent of the four largest parts, seconds at 790 TFLOP/s without
# and with full recomputation: the worked table that the formulas come with.
WORKED = [
    ("T2V_1_3B", (49, 480, 832), 20_280, 0.129, 0.386, (58.9, 26.0, 8.9, 4.5), 0.49, 0.65),
    ("T2V_1_3B", (81, 480, 832), 32_760, 0.283, 0.849, (69.9, 19.1, 6.6, 3.3), 1.07, 1.43),
    ("T2V_1_3B", (81, 720, 1280), 75_600, 1.250, 3.750, (84.3, 10.0, 3.4, 1.7), 4.75, 6.33),
    ("TI2V_5B", (121, 704, 1280), 27_280, 0.517, 1.551, (53.1, 27.9, 12.0, 6.0), 1.96, 2.62),
    ("T2V_14B", (49, 480, 832), 20_280, 0.832, 2.497, (40.5, 27.6, 20.4, 10.2), 3.16, 4.22),
    ("T2V_14B", (81, 480, 832), 32_760, 1.678, 5.035, (52.4, 22.1, 16.4, 8.2), 6.37, 8.50),
    ("T2V_14B", (93, 480, 832), 37_440, 2.061, 6.184, (55.7, 20.6, 15.2, 7.6), 7.83, 10.44),
    ("T2V_14B", (81, 720, 1280), 75_600, 6.523, 19.570, (71.8, 13.1, 9.7, 4.9), 24.8, 33.0),
]
PARTS = (
    "self_attention_core",
    "feed_forward",
    "self_attention_projections",
    "cross_attention_projections",
)


@pytest.mark.parametrize(("family", "size", "tokens", "forward", "both", "shares", "floor", "full"), WORKED)
def test_the_worked_table(
    family: str,
    size: tuple[int, int, int],
    tokens: int,
    forward: float,
    both: float,
    shares: tuple[float, ...],
    floor: float,
    full: float,
) -> None:
    root = training(FAMILIES[family], *size)
    found = plan(root, device="h200")
    assert found.work.tokens == tokens
    assert found.work.forward_flops / 1e15 == pytest.approx(forward, abs=6e-4)
    assert found.work.step_flops / 1e15 == pytest.approx(both, abs=6e-4)
    parts = found.work.flops_by_part
    assert sum(parts.values()) == found.work.forward_flops
    assert [100 * parts[part] / found.work.forward_flops for part in PARTS] == pytest.approx(shares, abs=0.06)
    # The table has two or three digits.
    digits = 0.006 if floor < 11 else 0.06
    assert floor_of(found) == pytest.approx(floor, abs=digits)
    recomputed = plan(replace(root, "recompute.mode", Recompute.FULL), device="h200")
    assert floor_of(recomputed) == pytest.approx(full, abs=0.006 if full < 11 else 0.06)
    assert recomputed.work.step_flops == found.work.step_flops
    assert recomputed.work.executed_flops == 4 * found.work.forward_flops


def floor_of(found: Plan) -> float:
    assert found.timing is not None
    return found.timing.floor


@pytest.mark.parametrize(
    ("family", "size", "none", "selective", "full"),
    [
        ("T2V_1_3B", (81, 480, 832), (1.52, 56.4), (1.63, 52.8), (1.94, 44.2)),
        ("T2V_1_3B", (81, 720, 1280), (7.11, 53.3), (7.35, 51.6), (9.01, 42.1)),
        ("T2V_14B", (49, 480, 832), (3.93, 64.2), (4.55, 55.5), (5.09, 49.6)),
        ("T2V_14B", (81, 480, 832), (8.36, 60.9), (9.36, 54.4), (10.75, 47.3)),
        ("T2V_14B", (81, 720, 1280), (35.3, 56.1), (37.6, 52.7), (44.9, 44.0)),
    ],
)
def test_the_bound_of_the_best_kernels(
    family: str,
    size: tuple[int, int, int],
    none: tuple[float, float],
    selective: tuple[float, float],
    full: tuple[float, float],
) -> None:
    root = training(FAMILIES[family], *size)
    for mode, (seconds, utilisation) in zip(
        (Recompute.NONE, Recompute.SELECTIVE, Recompute.FULL), (none, selective, full), strict=True
    ):
        found = plan(replace(root, "recompute.mode", mode), device="h200")
        assert found.timing is not None and found.timing.kernels is not None
        assert found.timing.kernels == pytest.approx(seconds, abs=0.011 if seconds < 11 else 0.06)
        share = found.work.step_flops / found.timing.kernels / 989e12
        assert 100 * share == pytest.approx(utilisation, abs=0.11)


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_equal_the_networks_built_on_meta(name: str) -> None:
    model = FAMILIES[name].model
    network = mm_models.build(model, device="meta")
    assert model.parameter_count() == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cross_attn_norm": False},
        {"image_dim": 24},
        {"image_dim": 24, "image_positions": 7},
        {"in_channels": 36, "patch_size": (1, 4, 2), "num_layers": 1},
    ],
)
def test_the_count_is_the_sum_over_all_shapes(changes: dict[str, Any]) -> None:
    model = attrs.evolve(tiny.SPEC.model, **changes)
    assert model.parameter_count() == ModelSpec.parameter_count(model)


def test_published_sizes() -> None:
    assert WIDTH_14B.parameter_count() == pytest.approx(14.29e9, abs=5e6)
    assert WIDTH_1_3B.parameter_count() == pytest.approx(1.42e9, abs=5e6)
    assert wan22.TI2V_5B.model.parameter_count() == pytest.approx(5.00e9, abs=5e6)


def test_a_step_is_three_forward_passes_of_each_clip() -> None:
    found = plan(training(wan21.T2V_14B, batch=8), world_size=4)
    assert found.work.step_flops == 3 * found.work.forward_flops * 8 == found.work.executed_flops


def test_the_image_branch_is_counted_with_the_tokens_of_its_images() -> None:
    text = plan(training(wan21.T2V_14B, height=720, width=1280)).work.flops_by_part
    for family, tokens in ((wan21.I2V_14B_720P, 257), (wan21.FLF2V_14B, 514)):
        found = plan(training(family, height=720, width=1280)).work.flops_by_part
        assert text["image"] == 0 < found["image"]
        added = found["cross_attention_core"] - text["cross_attention_core"]
        assert added == 40 * 4 * 75_600 * tokens * 5120


def test_adapters_spare_the_gradients_of_frozen_weights() -> None:
    whole = plan(training(wan21.T2V_14B))
    adapted = plan(replace(training(wan21.T2V_14B), "lora", LoraSpec(rank=16)))
    # Four matrices of two attentions in forty blocks.
    assert adapted.trainable_parameters == 40 * 8 * 16 * (5120 + 5120)
    assert adapted.parameters == whole.parameters == whole.trainable_parameters
    assert adapted.work.step_flops == whole.work.step_flops
    parts = whole.work.flops_by_part
    products = whole.work.forward_flops - parts["self_attention_core"] - parts["cross_attention_core"]
    assert whole.work.executed_flops - adapted.work.executed_flops == products


def test_frozen_parameters_are_not_trained() -> None:
    root = replace(training(wan21.T2V_14B), "frozen", ("*.bias", "patch_embedding.weight"))
    shapes = WIDTH_14B.parameter_shapes()
    biases = sum(shape[0] for name, shape in shapes.items() if name.endswith(".bias"))
    found = plan(root)
    assert found.parameters - found.trainable_parameters == biases + 16 * 4 * 5120


def generation(boundary: float | None, **sampler: Any) -> InferSpec:
    family = wan21.T2V_14B if boundary is None else attrs.evolve(wan22.T2V_A14B, boundary=boundary)
    return family.infer(sampler=replace(SamplerSpec(), sampler), dtype=Dtype.BFLOAT16)


def test_a_video_costs_two_passes_per_step_with_guidance() -> None:
    single = plan(generation(None, steps=40)).work
    assert single.step_flops == 80 * single.forward_flops
    unguided = plan(generation(None, steps=40, guidance_high_noise=1.0)).work
    assert unguided.step_flops == 40 * single.forward_flops
    assert plan(generation(0.875, steps=40)).work.step_flops == 80 * single.forward_flops


@pytest.mark.parametrize("sigmas", [table for table in SigmaTable if table is not SigmaTable.LISTED])
def test_guidance_is_counted_per_expert(sigmas: SigmaTable) -> None:
    alone: tuple[dict[str, Any], ...] = ({"guidance_low_noise": 1.0}, {"guidance_high_noise": 1.0})
    works = [plan(generation(0.875, steps=40, sigmas=sigmas, **one)).work for one in alone]
    # At shift 12 the level 0.875 is 0.3684 before the shift; levels are 1/40 or 1/39.47 apart.
    high = 25 if sigmas is SigmaTable.DIFFUSERS_EULER else 26
    assert [one.step_flops / one.forward_flops for one in works] == [40 + high, 80 - high]


def test_listed_timesteps_are_shared_out_to_the_experts() -> None:
    root = wan22.T2V_A14B_DISTILLED.infer()
    guided, unguided = plan(replace(root, "sampler.guidance_low_noise", 2.0)).work, plan(root).work
    assert unguided.step_flops == 4 * unguided.forward_flops
    assert guided.step_flops == 6 * unguided.forward_flops


def test_a_plan_is_plain_json() -> None:
    for root in (tiny.SPEC, tiny_high.SPEC):
        found = plan(root, world_size=2)
        read = json.loads(json.dumps(found.to_json()))
        assert read["bytes_per_rank"] == found.memory.bytes
        assert read["total_bytes_per_rank"] == sum(read["bytes_per_rank"].values())
        assert read["tokens"] == found.work.tokens and read["world_size"] == 2
        assert read["fits"] is None and read["floor_seconds"] is None
        assert read["problems"] == read["suggestions"] == []


def test_only_runs_have_plans() -> None:
    with pytest.raises(UserError, match="needs a training or an inference spec, got SamplerSpec"):
        plan(SamplerSpec())


@spec("test-planned-model")
class OwnModel(ModelSpec):
    """A third party's network, which says no more than it must."""

    in_channels: int = 16
    """In."""
    out_channels: int = 16
    """Out."""
    patch_size: tuple[int, int, int] = (1, 2, 2)
    """Patch."""
    text_dim: int = 4096
    """Text."""
    num_layers: int = 2
    """Blocks."""

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """One matrix per block."""
        return {f"blocks.{index}.weight": (8, 8) for index in range(self.num_layers)}

    def tokens(self, latent_shape: tuple[int, int, int]) -> int:
        """One."""
        return 1

    def forward_flops(
        self, latent_shape: tuple[int, int, int], text_tokens: int, image_tokens: int = 0
    ) -> int:
        """A product per block."""
        return 128 * self.num_layers

    def block_activation_values(self, latent_shape: tuple[int, int, int]) -> int:
        """Some."""
        return 24


def test_a_network_of_ones_own_needs_no_parts() -> None:
    root = replace(training(wan21.T2V_14B), "model", OwnModel())
    found = plan(replace(root, "recompute.mode", Recompute.FULL), device="h200")
    assert found.work.flops_by_part == {"network": 256}
    assert found.parameters == 128
    assert found.work.executed_flops == 4 * 256
    assert found.fits


def test_great_numbers_end_in_a_plan_and_absurd_ones_in_a_line() -> None:
    root = training(wan21.T2V_14B)
    assert plan(replace(root, "model.num_layers", 1000)).parameters == pytest.approx(351.6e9, rel=1e-3)
    many = plan(replace(root, "data.batch_size", 10**6), 8, "h200")
    assert not many.fits and not many.suggestions
    assert "no few changes" in many.problems[1]
    with pytest.raises(UserError) as caught:
        plan(replace(root, {"data.batch_size": 10**400, "data.height": 10**30}))
    assert [problem.path for problem in caught.value.problems] == ["spec.data.batch_size", "spec.data.height"]


def test_the_largest_bucket_is_planned() -> None:
    small = BucketSpec(num_frames=81, height=480, width=832)
    large = BucketSpec(num_frames=81, height=720, width=1280)
    found = plan(replace(training(wan21.T2V_14B), "data.buckets", (small, large)))
    assert found.work.tokens == 75_600
    assert "counted for the largest bucket" in found.notes
