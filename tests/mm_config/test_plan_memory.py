"""What a plan says about memory and traffic agrees with the worked numbers and with arithmetic."""

from typing import Any

import pytest

from mm_config import replace
from mm_config.families import wan21, wan22
from mm_config.families.wan21 import WIDTH_14B
from mm_config.planning.plan import Plan, plan
from mm_config.specs.data import Cache, DataSpec, PrecomputedSpec
from mm_config.specs.datasets import ManifestSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.dtype import Dtype
from mm_config.specs.family import Family
from mm_config.specs.lora import LoraSpec
from mm_config.specs.optim import AdamWSpec, EmaSpec, MuonSpec, ScheduleSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.serving import GuidanceMode, Residency
from mm_config.specs.train import PrecisionSpec, TrainSpec

PARAMETERS_14B = WIDTH_14B.parameter_count()
EXPERT_14B = 2 * PARAMETERS_14B + 2 * (27_535_360 + 242 * 5120 + 240 * 5120)
"""Bytes in bfloat16, where the time embedder, modulation tables and norms stay float32."""
PRECOMPUTED = PrecomputedSpec(name="features")


def training(family: Family = wan21.T2V_14B, batch: int = 8) -> TrainSpec:
    return family.train(
        Expert.SINGLE if family.boundary is None else Expert.HIGH_NOISE,
        data=DataSpec(dataset=ManifestSpec(name="x"), batch_size=batch, precomputed=PRECOMPUTED),
        schedule=ScheduleSpec(steps=10),
        precision=PrecisionSpec(compute=Dtype.BFLOAT16),
    )


def gigabytes(found: Plan, *names: str) -> float:
    return sum(found.memory.bytes[name] for name in names) / 1e9


@pytest.mark.parametrize(
    ("family", "ranks", "states", "base", "average", "block"),
    [
        (wan21.T2V_1_3B, 1, 22.7, 2.8, 5.7, 0.09),
        (wan22.TI2V_5B, 1, 80.0, 10.0, 20.0, 0.33),
        (wan21.T2V_14B, 1, 228.6, 28.6, 57.0, 0.70),
        (wan21.T2V_14B, 8, 28.6, 3.6, 7.1, 0.70),
    ],
)
def test_the_worked_states(
    family: Family, ranks: int, states: float, base: float, average: float, block: float
) -> None:
    root = replace(training(family), "ema", EmaSpec())
    found = plan(root, ranks)
    assert gigabytes(found, "parameters", "gradients", "optimizer") == pytest.approx(states, rel=3e-3)
    assert gigabytes(found, "ema") == pytest.approx(average, rel=7e-3)
    adapted = plan(replace(root, "lora", LoraSpec(rank=1)), ranks)
    assert gigabytes(adapted, "parameters") == pytest.approx(base, rel=2e-2)
    assert gigabytes(adapted, "gradients", "optimizer", "ema") < 0.1
    longer = plan(replace(root, "fsdp.backward_prefetch", 2), ranks)
    in_flight = gigabytes(longer, "gathered_weights") - gigabytes(found, "gathered_weights")
    assert in_flight == pytest.approx(block, abs=0.006)


@pytest.mark.parametrize(
    ("family", "size", "stream", "block", "at_work", "kept"),
    [
        (wan21.T2V_1_3B, (480, 832), 0.101, 2.399, 0.688, 3.0),
        (wan21.T2V_1_3B, (720, 1280), 0.232, 5.535, 1.587, 7.0),
        (wan21.T2V_14B, (480, 832), 0.335, 6.944, 1.241, 13.4),
        (wan21.T2V_14B, (720, 1280), 0.774, 16.025, 2.864, 31.0),
    ],
)
def test_the_worked_activations(
    family: Family, size: tuple[int, int], stream: float, block: float, at_work: float, kept: float
) -> None:
    root = replace(training(family), {"data.height": size[0], "data.width": size[1]})
    by_mode = plan(root, world_size=8).memory.activations_by_recompute
    layers = root.model.num_layers
    assert by_mode["none"] / 1e9 == pytest.approx(layers * block + at_work, rel=1e-3)
    assert by_mode["full"] / 1e9 == pytest.approx(kept + block + at_work, rel=7e-3)
    # One attention output more per layer, and a float32 per token and head.
    more, heads = by_mode["selective"] - by_mode["full"], root.model.num_attention_heads
    outputs = more - layers * plan(root).work.tokens * heads * 4
    assert outputs / layers / 1e9 == pytest.approx(stream, abs=6e-4)
    assert outputs / 1e9 == pytest.approx(kept, rel=1e-2)
    for mode in Recompute:
        found = plan(replace(root, "recompute.mode", mode), world_size=8)
        assert found.memory.bytes["activations"] == by_mode[mode.value]


def test_training_14b_on_eight_h200_with_selective_recomputation() -> None:
    found = plan(replace(training(), "recompute.mode", Recompute.SELECTIVE), 8, "h200")
    # 28.6 of states, 27 kept, 8.2 in the block at work, and the units in flight.
    assert found.memory.total / 1e9 == pytest.approx(66, abs=4)
    assert found.fits
    large = replace(
        training(), {"recompute.mode": Recompute.SELECTIVE, "data.height": 720, "data.width": 1280}
    )
    assert plan(large, 8, "h200").memory.total / 1e9 == pytest.approx(112, abs=6)
    assert plan(large, 8, "h200").fits
    assert not plan(large, 8, "h100").fits


def test_sequence_parallel_ranks_share_the_activations_of_a_clip() -> None:
    root = replace(training(batch=1), "parallel.ulysses", 8)
    assert gigabytes(plan(root, 8), "activations") == pytest.approx((40 * 6.944 + 1.241) / 8, rel=1e-3)
    mixed = replace(training(batch=1), {"parallel.ulysses": 4, "parallel.ring": 2})
    assert plan(mixed, 8).memory.bytes["activations"] == plan(root, 8).memory.bytes["activations"]


def test_micro_batches_bound_the_activations_and_add_up_whole_gradients() -> None:
    whole = plan(training(batch=16), world_size=8).memory.bytes
    micro = plan(replace(training(batch=16), "runtime.micro_batch_size", 1), world_size=8).memory.bytes
    assert micro["activations"] * 2 == whole["activations"]
    assert whole["accumulated_gradients"] == 0
    assert micro["accumulated_gradients"] == 4 * PARAMETERS_14B
    alone = replace(training(), "runtime.micro_batch_size", 1)
    assert plan(alone).memory.bytes["accumulated_gradients"] == 4 * PARAMETERS_14B
    unsharded = plan(replace(alone, "precision.compute", Dtype.FLOAT32))
    assert unsharded.memory.bytes["accumulated_gradients"] == 0


def test_recomputed_activations_can_wait_on_the_host() -> None:
    kept = replace(training(), "recompute.mode", Recompute.FULL)
    moved = plan(replace(kept, "recompute.offload", True), world_size=8)
    stream = 32_760 * 5120 * 2
    assert moved.memory.host["activations"] == 40 * stream
    assert plan(kept, 8).memory.bytes["activations"] == moved.memory.bytes["activations"] + 38 * stream


def test_only_matching_blocks_are_recomputed() -> None:
    some = replace(training(), {"recompute.mode": Recompute.FULL, "recompute.modules": ("blocks.{0-9}",)})
    found = plan(some, 8)
    block, at_work = 18 * 5120 + 13_824, 5120 + 13_824
    assert found.memory.bytes["activations"] == 65_520 * (31 * block + at_work + 10 * 5120)
    forward = found.work.forward_flops * 8
    assert found.work.executed_flops == pytest.approx(3.25 * forward)


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"fsdp.offload": True}, ("parameters", "gradients", "optimizer")),
        ({"ema": EmaSpec(offload=True)}, ("ema",)),
    ],
)
def test_what_is_offloaded_is_on_the_host(changes: dict[str, Any], moved: tuple[str, ...]) -> None:
    found = plan(replace(training(), changes), 8)
    for name in moved:
        assert found.memory.bytes[name] == 0 < found.memory.host[name]


def test_optimizers_keep_what_they_keep() -> None:
    eight_bit = plan(replace(training(), "optim", AdamWSpec(state_bits=8)))
    assert eight_bit.memory.bytes["optimizer"] == 2 * PARAMETERS_14B
    muon = plan(replace(training(), "optim", MuonSpec())).memory.bytes["optimizer"]
    # Nearly all parameters are matrices in blocks, with one moment of four bytes.
    assert 4 * PARAMETERS_14B < muon < 4.1 * PARAMETERS_14B


def test_shard_groups_hold_copies() -> None:
    whole, grouped = plan(training(), 8), plan(replace(training(), "fsdp.shard_size", 4), 8)
    assert grouped.memory.bytes["parameters"] == 2 * whole.memory.bytes["parameters"]
    assert {flow.name for flow in grouped.traffic} - {flow.name for flow in whole.traffic} == {
        "copies_gradients"
    }


def test_encoders_are_on_the_device_while_they_are_needed() -> None:
    root = replace(training(batch=1), "data.precomputed", None)
    small = replace(root, {"recompute.mode": Recompute.FULL, "data.height": 64, "data.width": 64})
    resident = plan(small, 1).memory.phases
    assert resident["training"]["text_encoder"] == resident["encoding"]["text_encoder"] > 11e9
    away = plan(replace(small, "runtime.offload_encoders", True), 1).memory
    assert away.phases["training"]["text_encoder"] == 0 < away.phases["encoding"]["text_encoder"]
    assert away.host["text_encoder"] > 11e9
    shared = plan(replace(small, {"runtime.shard_encoders": True, "data.batch_size": 8}), 8).memory.phases
    assert shared["training"]["text_encoder"] * 8 == resident["training"]["text_encoder"]
    cached = plan(replace(small, "data.cache", Cache.LATENTS), 1).memory.phases
    assert cached["training"]["text_encoder"] == cached["encoding"]["parameters"] == 0


def test_encoding_many_clips_at_once_is_a_phase_of_its_own() -> None:
    root = replace(training(batch=8), {"data.precomputed": None, "recompute.mode": Recompute.FULL})
    found = plan(replace(root, "runtime.micro_batch_size", 1), 1).memory
    one = plan(replace(root, "data.batch_size", 1), 1).memory
    assert found.phases["encoding"]["activations"] == 8 * one.phases["encoding"]["activations"]
    tiled = plan(replace(root, "autoencoder.tiling", True), 1).memory
    assert tiled.phases["encoding"]["activations"] < found.phases["encoding"]["activations"] / 4


def test_sharded_traffic_of_14b_on_eight_ranks() -> None:
    flows = {flow.name: flow.bytes for flow in plan(training(), 8).traffic}
    # Two all-gathers in bfloat16 and a reduce-scatter in float32, 57 GB each, of which a rank has an eighth.
    assert flows["gathered_weights"] + flows["gathered_again"] == pytest.approx(57.2e9 * 7 / 8, rel=1e-2)
    assert flows["reduced_gradients"] / 1e9 == pytest.approx(57.2 * 7 / 8, rel=1e-3)
    halved = plan(replace(training(), "precision.reduce", Dtype.BFLOAT16), 8).traffic
    assert {flow.name: flow.bytes for flow in halved}["reduced_gradients"] * 2 == flows["reduced_gradients"]
    kept = plan(replace(training(), "fsdp.reshard_after_forward", False), 8).traffic
    assert "gathered_again" not in {flow.name for flow in kept}
    assert not [flow for flow in plan(training(), 1).traffic if flow.span]


def test_parameters_that_a_node_shares_again_are_gathered_inside_of_it() -> None:
    root = training(batch=16)
    wide, near = (plan(replace(root, "fsdp.reshard_size", size), 16) for size in (16, 8))
    flows = {flow.name: flow for flow in near.traffic}
    blocks = 2 * 351_394_304 * 40  # In bfloat16; the one row of a modulation is filled up to sixteen.
    assert flows["gathered_again"].bytes == (blocks + 2 * 15 * 6 * 5120 * 40) * 7 // 8
    assert (flows["gathered_again"].span, flows["gathered_weights"].span) == (8, 16)
    kept = near.memory.bytes["gathered_weights"] - wide.memory.bytes["gathered_weights"]
    assert kept == pytest.approx(blocks / 8, rel=1e-3)
    assert plan(root, 16).traffic == wide.traffic


def test_offloading_without_anything_recomputed_moves_nothing() -> None:
    for changes in ({}, {"recompute.mode": Recompute.FULL, "recompute.modules": ("blocks.*.ffn",)}):
        found = plan(replace(training(), {"recompute.offload": True, **changes}), 8)
        assert "offloaded_activations" not in {flow.name for flow in found.traffic}


def test_all_to_alls_and_ring_move_a_ranks_share_of_the_stream() -> None:
    stream = 40 * 32_760 * 5120 * 2
    ulysses = plan(replace(training(batch=1), "parallel.ulysses", 8), 8).traffic
    (exchanged,) = (flow.bytes for flow in ulysses if flow.name == "ulysses")
    assert exchanged == pytest.approx(2 * 4 * stream / 8 * 7 / 8, rel=1e-6)
    ring = plan(replace(training(batch=1), "parallel.ring", 4), 4).traffic
    turn = (2 + 2 + 4) * stream // 4  # Keys and values both ways, and their gradients in float32.
    assert [flow.bytes for flow in ring if flow.name == "ring"] == [3 * turn]


def generation(**changes: Any) -> Any:
    spec = wan22.T2V_A14B.infer(dtype=Dtype.BFLOAT16)
    return replace(spec, {path.replace("__", "."): value for path, value in changes.items()})


def phases(**changes: Any) -> dict[str, dict[str, int]]:
    return plan(generation(**changes)).memory.phases


def test_both_experts_are_held_at_inference() -> None:
    one = plan(wan21.T2V_14B.infer(dtype=Dtype.BFLOAT16))
    assert one.memory.bytes["parameters"] == EXPERT_14B
    assert phases()["denoising"]["parameters"] == 2 * EXPERT_14B


def test_experts_wait_where_residency_says() -> None:
    swapped = phases(runtime__residency__experts=Residency.SWAP)
    assert swapped["denoising"]["parameters"] == EXPERT_14B
    assert swapped["encoding"]["parameters"] == swapped["decoding"]["parameters"] == 0
    layerwise = phases(runtime__residency__experts=Residency.LAYERWISE)["denoising"]["parameters"]
    # The ends of both experts and two blocks.
    assert layerwise < 3e9
    half = phases(runtime__residency__experts=Residency.LAYERWISE, runtime__residency__share=0.5)
    assert layerwise < half["denoising"]["parameters"] < 2.2 * PARAMETERS_14B
    found = plan(generation(runtime__residency__experts=Residency.LAYERWISE))
    (fetched,) = (flow.bytes for flow in found.traffic if flow.name == "blocks_from_host")
    assert fetched == pytest.approx(40 * 2 * PARAMETERS_14B, rel=2e-2)
    assert found.memory.host["parameters"] == 2 * EXPERT_14B


def test_swapped_encoders_are_there_only_when_they_work() -> None:
    found = phases(runtime__residency__encoders=Residency.SWAP)
    assert found["encoding"]["text_encoder"] > 11e9
    assert found["denoising"]["text_encoder"] == found["decoding"]["text_encoder"] == 0
    assert found["decoding"]["autoencoder"] > 0 == found["denoising"]["autoencoder"]


def test_guidance_in_two_passes_halves_the_activations() -> None:
    batched, sequential = phases(), phases(runtime__guidance=GuidanceMode.SEQUENTIAL)
    tables = 4 * 2 * 32_760 * 128  # Cosines and sines, which both halves share.
    assert batched["denoising"]["activations"] + tables == 2 * sequential["denoising"]["activations"]
    unguided = phases(sampler__guidance_high_noise=1.0, sampler__guidance_low_noise=1.0)
    assert unguided["denoising"]["activations"] == sequential["denoising"]["activations"]


def test_ranks_of_a_generation_share_weights_and_tokens() -> None:
    alone = phases()["denoising"]
    shared = phases(runtime__parallel__fsdp=True, runtime__parallel__ulysses=8)["denoising"]
    assert shared["parameters"] == pytest.approx(alone["parameters"] / 8, rel=1e-6)
    assert shared["activations"] * 8 == alone["activations"]
    assert 0 == alone["gathered_weights"] < shared["gathered_weights"] < 2e9
    found = plan(generation(runtime__parallel__fsdp=True, runtime__parallel__ulysses=8), 8, "h200").timing
    single = plan(generation(), 1, "h200").timing
    assert found is not None and single is not None
    assert found.computation * 8 == pytest.approx(single.computation)
