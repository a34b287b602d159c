"""Rules on patterns: sharding, recomputation, frozen parameters, groups, adapters, quantisation."""

from typing import Any

import pytest

from mm_config import problems, replace
from mm_config.specs.lora import AppliedLoraSpec, LoraSpec
from mm_config.specs.optim import MuonSpec, ParameterGroupSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.serving import QuantFormat, QuantizationSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights, TrainedBy
from tests.mm_config.breaking import TRAIN, WAN_1_3B, WAN_HIGH, WAN_SINGLE, WAN_T2V, found, only

LORA = replace(WAN_HIGH, "lora", LoraSpec())


def group(*parameters: str) -> ParameterGroupSpec:
    return ParameterGroupSpec(parameters=parameters, lr_scale=0.5)


def test_sharding_patterns_match_modules() -> None:
    wrap = ("blocks.*", "block.*", "blocks.*.atn1", "*.0")
    assert found(TRAIN, {"fsdp.wrap": wrap}) == {
        "spec.fsdp.wrap.1": "'block.*' matches no module; nearest: 'blocks.*', 'blocks', 'blocks.*.ffn'",
        "spec.fsdp.wrap.2": "'blocks.*.atn1' matches no module; "
        "nearest: 'blocks.*.attn1', 'blocks.*.attn2', 'blocks.*.attn1.to_v'",
    }


@pytest.mark.parametrize("path", ["fsdp.wrap", "fsdp.ignore", "recompute.modules"])
def test_every_pattern_over_modules_matches_one(path: str) -> None:
    base = replace(WAN_1_3B, "fsdp.wrap", ())
    assert found(base, {path: ("proj_out", "blocks.{0-3,7}", "blocks.{*}.attn1")}) == {}
    wrong = found(
        base, {path: ("predictor.blocks.{*}", "blocks.{30-40}", "blocks.{0-3", "proj_out", "proj_out")}
    )
    assert wrong.keys() == {f"spec.{path}.{index}" for index in (0, 1, 2, 4)}
    assert "matches no module; nearest: 'blocks.*'" in wrong[f"spec.{path}.0"]
    assert "matches no module" in wrong[f"spec.{path}.1"]
    only(base, {path: ("blocks.{0-39}",)}, f"{path}.0", "'blocks.{0-39}' lists 30-39, which match no module")
    assert "write for example blocks.{0-3,7}" in wrong[f"spec.{path}.2"]
    assert wrong[f"spec.{path}.4"] == "'proj_out' is listed twice"


@pytest.mark.parametrize("path", ["fsdp.wrap", "fsdp.ignore", "recompute.modules"])
def test_a_list_of_modules_is_never_called(path: str) -> None:
    message = "'blocks' is a list of modules; for its items write 'blocks.*'"
    assert found(WAN_1_3B, {"fsdp.wrap": (), path: ("blocks",)}) == {f"spec.{path}.0": message}


def test_a_module_is_sharded_or_left_whole() -> None:
    changes = {"fsdp.ignore": ("proj_out", "blocks.0")}
    only(WAN_1_3B, changes, "fsdp.ignore.1", "'blocks.0' leaves 'blocks.0' whole, which fsdp.wrap shards")
    inside = {"fsdp.wrap": ("blocks.*.ffn",), "fsdp.ignore": ("blocks.3",)}
    only(WAN_1_3B, inside, "fsdp.ignore.0", "'blocks.3' leaves 'blocks.3.ffn' whole, which fsdp.wrap shards")


def test_several_blocks_in_a_unit_need_blocks_that_are_units() -> None:
    assert found(WAN_1_3B, {"fsdp.blocks_per_unit": 2}) == {}
    changes = {"fsdp.blocks_per_unit": 2, "fsdp.wrap": ("blocks.*.ffn", "blocks.*.attn1")}
    only(WAN_1_3B, changes, "fsdp.blocks_per_unit", "is 2, but fsdp.wrap matches no whole block")


def test_only_recomputation_keeps_what_can_be_moved_to_the_host() -> None:
    moved = {"recompute.offload": True}
    only(WAN_1_3B, moved, "recompute.offload", "recompute.mode is none", "full or selective")
    for mode in (Recompute.FULL, Recompute.SELECTIVE):
        assert found(WAN_1_3B, {**moved, "recompute.mode": mode}) == {}


def test_parameters_are_shared_again_by_a_part_of_their_shards() -> None:
    sixteen = replace(WAN_1_3B, "data.batch_size", 16)
    assert found(sixteen, {"fsdp.reshard_size": 8}, world_size=16) == {}
    only(sixteen, {"fsdp.reshard_size": 3}, "fsdp.reshard_size", "nearest: 2 or 4", world_size=16)
    part = {"fsdp.reshard_size": 8, "fsdp.shard_size": 4}
    only(sixteen, part, "fsdp.reshard_size", "8 does not divide shard_size 4; nearest: 4")
    kept = {"fsdp.reshard_size": 8, "fsdp.reshard_after_forward": False}
    only(sixteen, kept, "fsdp.reshard_size", "reshard_after_forward is False")


def test_frozen_parameters_exist_and_leave_others() -> None:
    assert found(WAN_1_3B, {"frozen": ("*.bias", "blocks.{0-9}.*")}) == {}
    only(WAN_1_3B, {"frozen": ("blocks.{28-31}.*",)}, "frozen.0", "lists 30-31, which match no parameter")
    only(WAN_1_3B, {"frozen": ("*.biass",)}, "frozen.0", "matches no parameter; nearest: ", ".bias'")
    only(WAN_1_3B, {"frozen": ("*",)}, "frozen", "nothing is left to train")


@pytest.mark.parametrize("optim", [WAN_1_3B.optim, MuonSpec()])
def test_parameter_groups_match_parameters_of_their_own(optim: Any) -> None:
    base = replace(WAN_1_3B, {"optim": optim, "frozen": ("proj_out.*",)})
    path = "optim.groups"
    assert found(base, {path: (group("*.bias"), group("blocks.*"))}) == {}
    wrong = found(base, {path: (group("*.bias", "*.bia"), group("blocks.*.bias"), group("proj_out.weight"))})
    assert wrong.keys() == {
        "spec.optim.groups.0.parameters.1",
        "spec.optim.groups.1.parameters",
        "spec.optim.groups.2.parameters",
    }
    assert "'*.bia' matches no parameter" in wrong["spec.optim.groups.0.parameters.1"]
    assert "frozen or in a group before" in wrong["spec.optim.groups.1.parameters"]


def test_adapters_leave_the_network_as_it_is() -> None:
    changes = {"frozen": ("*.bias",), "optim.groups": (group("*.bias"),)}
    wrong = found(LORA, changes)
    assert wrong.keys() == {"spec.frozen", "spec.optim.groups"}
    assert "which lora leaves as they are" in wrong["spec.frozen"]


def test_adapters_are_put_on_linear_layers() -> None:
    assert found(LORA, {}) == {}
    assert found(LORA, {"lora.targets": ("blocks.{0-3}.attn{1,2}.to_q", "blocks.*.ffn.net.2")}) == {}
    wrong = found(
        LORA,
        {
            "lora.targets": (
                "blocks.*.attn1.q",
                "blocks.*.attn1.*",
                "patch_embedding",
                "blocks.{0",
                "*.ffn.net.*",
            )
        },
    )
    assert wrong.keys() == {f"spec.lora.targets.{index}" for index in range(5)}
    assert "nearest: 'blocks.*.ffn.net.2', 'blocks.*.ffn.net.0.proj'" in wrong["spec.lora.targets.4"]
    assert "matches no linear layer; nearest: 'blocks.*.attn1.to_q'" in wrong["spec.lora.targets.0"]
    assert "matches 'blocks.0.attn1.to_out', which is no linear layer" in wrong["spec.lora.targets.1"]
    assert "matches 'patch_embedding', which is no linear layer" in wrong["spec.lora.targets.2"]
    assert "write for example" in wrong["spec.lora.targets.3"]


def test_adapters_go_on_from_adapters_of_the_same_form() -> None:
    assert found(LORA, {"lora.start_from": TrainedBy(spec=LORA)}) == {}
    assert found(LORA, {"lora.start_from": ReleasedWeights(name="x")}) == {}
    only(LORA, {"lora.start_from": RandomWeights()}, "lora.start_from", "None starts adapters anew")
    smaller = TrainedBy(spec=replace(LORA, {"lora.rank": 4, "lora.alpha": 4.0}))
    assert found(LORA, {"lora.start_from": smaller}) == {
        "spec.lora.start_from.spec.lora.rank": "was trained with 4, but spec.lora.rank is 16",
        "spec.lora.start_from.spec.lora.alpha": "was trained with 4.0, but spec.lora.alpha is 16.0",
    }
    only(LORA, {"lora.start_from": TrainedBy(spec=WAN_HIGH)}, "lora.start_from.spec.lora", "not adapters")


def test_a_network_does_not_start_from_adapters() -> None:
    trained = TrainedBy(spec=LORA)
    only(WAN_HIGH, {"start_from": trained}, "start_from.spec.lora", "made adapters, not a network")
    only(WAN_T2V, {"high_noise": trained}, "high_noise.spec.lora", "made adapters, not a network")


def test_generation_adds_adapters_to_the_experts_they_were_trained_for() -> None:
    adapters = TrainedBy(spec=LORA)
    released = ReleasedWeights(name="x")
    assert found(WAN_T2V, {"loras": (AppliedLoraSpec(high_noise=adapters, low_noise=released),)}) == {}
    assert found(WAN_T2V, {"loras": (AppliedLoraSpec(low_noise=adapters),)}) == {
        "spec.loras.0.low_noise.spec.expert": "must be low_noise, got high_noise"
    }
    network = (AppliedLoraSpec(high_noise=TrainedBy(spec=WAN_HIGH)),)
    only(WAN_T2V, {"loras": network}, "loras.0.high_noise.spec.lora", "made a network, not adapters")
    random = (AppliedLoraSpec(high_noise=RandomWeights()),)
    only(WAN_T2V, {"loras": random}, "loras.0.high_noise", "can't be random weights")
    both = (AppliedLoraSpec(high_noise=released, low_noise=released),)
    only(WAN_SINGLE, {"loras": both}, "loras.0.low_noise", "single network (spec.boundary is None)")
    wrong = problems(replace(WAN_SINGLE, "loras", (AppliedLoraSpec(high_noise=adapters),)))
    assert "spec.loras.0.high_noise.spec.model.hidden_size" in {problem.path for problem in wrong}


def test_quantised_modules_hold_linear_layers() -> None:
    path = "quantization"
    assert found(WAN_T2V, {path: QuantizationSpec()}) == {}
    assert found(WAN_T2V, {path: QuantizationSpec(modules=("blocks.*.ffn",), skip=(), group_size=128)}) == {}
    only(WAN_T2V, {path: QuantizationSpec(skip=("head",))}, f"{path}.skip.0", "matches no module")
    nothing = QuantizationSpec(modules=("blocks.*.norm2", "proj_out"))
    only(WAN_T2V, {path: nothing}, f"{path}.modules", "holds no linear layer")
    uneven = QuantizationSpec(group_size=100)
    only(WAN_T2V, {path: uneven}, f"{path}.group_size", "do not divide the rows", "nearest: 64 or 128")


def test_some_formats_fix_the_size_of_a_group() -> None:
    path = "quantization"
    only(
        WAN_T2V,
        {path: QuantizationSpec(format=QuantFormat.MXFP4)},
        f"{path}.group_size",
        "is None",
        "set it to 32",
    )
    nvfp4 = QuantizationSpec(format=QuantFormat.NVFP4, group_size=32)
    only(WAN_T2V, {path: nvfp4}, f"{path}.group_size", "is 32, but nvfp4", "set it to 16")
    assert found(WAN_T2V, {path: QuantizationSpec(format=QuantFormat.NVFP4, group_size=16)}) == {}
