"""Adapters in networks: merged and taken out again, beside the weights, several together, sharded."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from mm_config.schema.errors import UserError
from mm_models.lora.adapter import Adapter, Addition, LowRank
from mm_models.lora.merging import merge, unmerge
from mm_models.lora.unmerged import attach
from mm_models.ops.layers import Float32Linear
from tests.mm_models.lora_files import ATTENTION, BLOCKS, adapter_of, network_of
from tests.mm_models.parity import inputs, relative_error
from tests.mm_models.weight_files import T2V

EMBEDDERS = ("condition_embedder.time_proj", "condition_embedder.text_embedder.linear_1", "proj_out")
QUERY = "blocks.0.attn1.to_q"


def forward(network: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    latents, timestep, text = inputs(T2V, (2, 4, 2, 4, 4), 5)
    return network(latents.to(dtype), timestep, text.to(dtype))


def values(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def by_formula(weight: Tensor, *layers: tuple[LowRank, float]) -> Tensor:
    """weight + strength * alpha / rank * up @ down, in float64."""
    total = weight.double()
    for layer, strength in layers:
        total = total + strength * layer.alpha / layer.rank * layer.up.double() @ layer.down.double()
    return total


def test_merging_adds_strength_times_alpha_over_rank_times_the_product() -> None:
    network, adapter = network_of(), adapter_of(BLOCKS + EMBEDDERS)
    before = values(network)
    merge(network, [Addition(adapter, 0.7)])
    for name, value in values(network).items():
        layer = adapter.layers.get(name.removesuffix(".weight"))
        if layer is None or name.endswith(".bias"):
            assert torch.equal(value, before[name]), name
        else:
            expected = by_formula(before[name], (layer, 0.7))
            assert relative_error(value.double(), expected) < 1e-6, name
            assert relative_error(value, before[name]) > 0.1, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_taking_out_restores_every_bit(dtype: torch.dtype) -> None:
    network = network_of(dtype=dtype)
    before = values(network)
    first, second = adapter_of(BLOCKS), adapter_of(ATTENTION, key="second", alpha=0.013)
    merge(network, [Addition(first, 1.0)])
    between = values(network)
    merge(network, [Addition(second, -3.0), Addition(first, 0.1)])
    assert not all(torch.equal(value, between[name]) for name, value in values(network).items())
    unmerge(network)
    assert all(torch.equal(value, between[name]) for name, value in values(network).items())
    unmerge(network)
    assert all(torch.equal(value, before[name]) for name, value in values(network).items())
    # What the originals are kept for: subtracting the same product would have left its roundings.
    layer = first.layers[QUERY]
    weight = before[f"{QUERY}.weight"]
    product = layer.change(1.0, torch.empty(0))
    subtracted = ((weight.float() + product).to(dtype).float() - product).to(dtype)
    assert not torch.equal(subtracted, weight)
    with pytest.raises(UserError, match="none is merged into this network"):
        unmerge(network)


def test_what_was_not_kept_is_not_taken_out() -> None:
    network = network_of()
    merge(network, [Addition(adapter_of())], keep_on=None)
    merged = values(network)
    with pytest.raises(UserError, match="can't be taken out: the weights that it replaced were not kept"):
        unmerge(network)
    assert all(torch.equal(value, merged[name]) for name, value in values(network).items())


def test_several_adapters_add_up_and_are_rounded_once() -> None:
    adapters = [Addition(adapter_of(BLOCKS), 0.5), Addition(adapter_of(key="other", rank=7, alpha=2.0), 2.0)]
    network = network_of(dtype=torch.bfloat16)
    before = values(network)
    merge(network, adapters)
    for name, addition in ((QUERY, adapters), ("blocks.2.ffn.net.2", adapters[:1])):
        parts = [(one.adapter.layers[name], one.strength) for one in addition]
        expected = by_formula(before[f"{name}.weight"], *parts).float().bfloat16()
        merged = network.get_parameter(f"{name}.weight")
        assert merged.dtype == torch.bfloat16
        assert (merged == expected).float().mean() > 0.99  # float64 and float32 may round to other sides.

    joined, merged = network_of(), network_of()
    attach(joined, adapters)
    merge(merged, adapters)
    assert relative_error(forward(joined), forward(merged)) < 1e-4


def test_full_differences_are_added_and_taken_out() -> None:
    differences = {
        "blocks.1.norm2.weight": torch.randn(36),
        "blocks.0.ffn.net.2.bias": torch.randn(36),
        "blocks.2.scale_shift_table": torch.randn(1, 6, 36),
        f"{QUERY}.weight": torch.randn(36, 36),
    }
    network, adapter = network_of(dtype=torch.bfloat16), Adapter(adapter_of().layers, differences)
    before = values(network)
    merge(network, [Addition(adapter, 0.5)])
    for name, difference in differences.items():
        expected = before[name].float() + 0.5 * difference
        if name == f"{QUERY}.weight":
            expected += adapter.layers[QUERY].change(0.5, before[name])
        torch.testing.assert_close(network.get_parameter(name), expected.to(before[name].dtype))
    unmerge(network)
    assert all(torch.equal(value, before[name]) for name, value in values(network).items())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.05)])
def test_beside_equals_merged_within_rounding(dtype: torch.dtype, tolerance: float) -> None:
    adapter = adapter_of(BLOCKS + EMBEDDERS, alpha=0.4)
    plain, merged, beside = network_of(dtype=dtype), network_of(dtype=dtype), network_of(dtype=dtype)
    merge(merged, [Addition(adapter, 0.5)])
    attached = attach(beside, [Addition(adapter, 0.5)])
    expected = forward(merged)
    assert relative_error(forward(beside), expected) < tolerance
    assert relative_error(forward(plain), expected) > 0.2
    attached.detach()
    assert torch.equal(forward(beside), forward(plain))
    assert beside.state_dict().keys() == plain.state_dict().keys()
    attach(beside, [Addition(adapter, 0.5)])  # Its place is free again.


@pytest.mark.parametrize("layer_class", [nn.Linear, Float32Linear])
@pytest.mark.parametrize("bias", [True, False])
def test_one_layer_and_its_gradients_are_the_formulas(layer_class: type[nn.Linear], bias: bool) -> None:
    layer = layer_class(6, 5, bias=bias)
    network = nn.ModuleDict({"layer": layer})
    adapter = Adapter({"layer": LowRank(torch.randn(2, 6), torch.randn(5, 2), alpha=3.0)})
    attach(network, [Addition(adapter, 0.5)])
    down, up = (layer.get_parameter(f"{half}.weight").requires_grad_() for half in ("lora_A", "lora_B"))
    torch.testing.assert_close(up, 0.75 * adapter.layers["layer"].up)
    x, direction = torch.randn(4, 6, requires_grad=True), torch.randn(4, 5)
    wanted = [x, down, up, *layer.parameters(recurse=False)]
    expected = F.linear(x, layer.weight + up @ down, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    gradients = torch.autograd.grad(layer(x), wanted, direction)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, wanted, direction))


def test_a_compiled_block_has_one_graph_and_the_same_values() -> None:
    network = network_of()
    attach(network, [Addition(adapter_of(BLOCKS))])
    expected = forward(network)
    network.get_submodule("blocks.1").compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(forward(network), expected)


@pytest.mark.parametrize("apply", [merge, attach])
def test_adapters_that_do_not_fit_are_one_clear_error(apply: Callable[..., object]) -> None:
    network = network_of()
    before = values(network)
    names = {name: adapter_of([name]).layers[name] for name in ATTENTION}

    def message(layers: dict[str, LowRank]) -> str:
        with pytest.raises(UserError) as caught:
            apply(network, [Addition(Adapter(layers))], where="a.safetensors")
        (problem,) = caught.value.problems
        assert network.state_dict().keys() == before.keys()
        assert all(torch.equal(value, before[name]) for name, value in values(network).items())
        return str(problem)

    nothing = message({f"double_{name}": layer for name, layer in names.items()})
    assert nothing.startswith("a.safetensors: the adapter matches nothing in the network: it changes double_")
    assert " and 21 more; the network has patch_embedding.weight, " in nothing
    lacking = message(names | {"blocks.7.attn1.to_q": names[QUERY]})
    assert lacking.endswith("changes 1 parameters that the network lacks: blocks.7.attn1.to_q.weight")
    other = message(names | {QUERY: LowRank(torch.ones(4, 24), torch.ones(24, 4), 4.0)})
    assert "changes 1 parameters of another shape, so it was made for another network" in other
    assert other.endswith(f"{QUERY}.weight is for (24, 24), the network's is (36, 36)")


def test_convolutions_and_full_differences_are_beside_what_they_are_merged() -> None:
    layers = {**adapter_of(ATTENTION[:3]).layers}
    layers |= {"patch_embedding": LowRank(torch.randn(2, 4, 1, 2, 2), torch.randn(36, 2, 1, 1, 1), 2.0)}
    differences = {
        "patch_embedding.weight": torch.randn(36, 4, 1, 2, 2),
        "patch_embedding.bias": torch.randn(36),
        f"{QUERY}.weight": torch.randn(36, 36),
        f"{QUERY}.bias": torch.randn(36),
        "condition_embedder.time_embedder.linear_1.weight": torch.randn(36, 16),
        "blocks.1.norm2.weight": torch.randn(36),
        "blocks.1.attn2.norm_k.weight": torch.randn(36),
        "blocks.2.scale_shift_table": torch.randn(1, 6, 36),
        "scale_shift_table": torch.randn(1, 2, 36),
    }
    adapter = Adapter(layers, {name: 0.2 * value for name, value in differences.items()})
    plain = network_of()
    for name, value in adapter.differences.items():  # Each alone, so that none hides behind another.
        _assert_beside_is_merged(plain, Addition(Adapter({}, {name: value}), 0.5))
    _assert_beside_is_merged(plain, Addition(Adapter({"patch_embedding": layers["patch_embedding"]})))
    _assert_beside_is_merged(plain, Addition(adapter, 0.5))
    network = network_of()
    attach(network, [Addition(adapter)])
    expected = forward(network)
    network.get_submodule("blocks.0").compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(forward(network), expected)


def _assert_beside_is_merged(network: nn.Module, addition: Addition) -> None:
    before = values(network)
    attached = attach(network, [addition])
    beside = forward(network)
    attached.detach()
    assert all(torch.equal(value, before[name]) for name, value in values(network).items())
    merge(network, [addition])
    assert any(not torch.equal(value, before[name]) for name, value in values(network).items())
    assert relative_error(beside, forward(network)) < 2e-5
    unmerge(network)


def _merge_shards(rank: int) -> None:
    layers = {**adapter_of(key="other", rank=7).layers}
    shapes = {QUERY: (36, 1), "blocks.1.attn1.to_q": (1, 36)}  # DoRA by rows, and by columns.
    layers |= {
        name: attrs.evolve(layers[name], magnitude=torch.ones(shape)) for name, shape in shapes.items()
    }
    adapters = [Addition(adapter_of(BLOCKS), 0.5), Addition(Adapter(layers))]
    # A unit of FSDP2 has one dtype, so norms and tables are rounded here, too.
    plain, sharded = network_of().bfloat16(), network_of().bfloat16()
    before = values(plain)
    mesh = init_device_mesh("cpu", (2,))
    for block in sharded.get_submodule("blocks").children():
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)

    def assert_equal(expected: dict[str, Tensor]) -> None:
        for name, parameter in sharded.named_parameters():
            assert isinstance(parameter, DTensor)
            assert torch.equal(parameter.full_tensor(), expected[name]), name

    merge(plain, adapters)
    merge(sharded, adapters)
    assert_equal(values(plain))
    expected = forward(plain, torch.bfloat16)
    torch.testing.assert_close(forward(sharded, torch.bfloat16), expected)
    assert not isinstance(sharded.get_parameter("proj_out.weight"), DTensor)  # The pass left it gathered.
    unmerge(sharded)
    assert_equal(before)


def test_shards_merge_to_the_same_bits_and_back(run_ranks: Callable[..., None]) -> None:
    run_ranks(_merge_shards)


def test_networks_are_told_apart() -> None:
    merged, other = network_of(), network_of()
    merge(merged, [Addition(adapter_of())])
    with pytest.raises(UserError, match="none is merged"):
        unmerge(other)
