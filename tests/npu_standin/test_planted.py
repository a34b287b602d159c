"""Mistakes that only this tier sees are caught, each planted in a network of the project."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import attrs
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mm_models.ops.choosing import Ops, choose
from mm_models.ranks import backend_for
from tests.npu_standin import guard
from tests.npu_standin.parity import assert_equal, on_device
from tests.npu_standin.test_networks import TEXT_TO_VIDEO, drawn, inputs


def forward_with(npu: torch.device, **planted: Callable[..., Tensor]) -> Tensor:
    """The network's output with forms of operations in the place of the device's own."""
    ops: Ops = attrs.evolve(choose(npu), **planted)
    network = drawn(TEXT_TO_VIDEO, npu, ops=ops)
    return network(*on_device(inputs(TEXT_TO_VIDEO), npu))


@pytest.fixture
def expected_hits() -> Iterator[list[str]]:
    """What the guard has to have caught by the end of the test, which then does not fail it."""
    expected: list[str] = []
    yield expected
    assert guard.hits() == expected != []
    guard.forget()


def test_nothing_planted_passes(npu: torch.device) -> None:
    assert forward_with(npu).isfinite().all()


def test_an_operator_without_npu_kernel_raises(npu: torch.device) -> None:
    def planted(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return torch.linalg.solve(torch.eye(x.shape[-1], device=x.device), x[0].transpose(-1, -2)).mT[None]

    with pytest.raises(RuntimeError, match="linalg_solve"):
        forward_with(npu, rms_norm=planted)


def test_a_fused_operator_without_reference_raises(npu: torch.device, expected_hits: list[str]) -> None:
    def planted(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        heads = query.shape[2]
        return torch.ops.npu.npu_prompt_flash_attention(
            query, key, value, num_heads=heads, input_layout="BSND"
        )

    expected_hits.append("npu_prompt_flash_attention")
    with pytest.raises(guard.NoReference, match="npu_prompt_flash_attention"):
        forward_with(npu, attention=planted)


def test_it_is_known_even_where_the_error_was_caught(npu: torch.device, expected_hits: list[str]) -> None:
    def planted(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        try:
            return torch.ops.npu.npu_gemma_rms_norm(x, weight, eps)[0]
        except NotImplementedError:
            return choose(npu).rms_norm(x, weight, eps)

    expected_hits.extend(["npu_gemma_rms_norm"] * 4 * TEXT_TO_VIDEO.num_layers)
    assert forward_with(npu, rms_norm=planted).isfinite().all()


def test_a_call_for_cuda_raises(npu: torch.device) -> None:
    def planted(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        return choose(npu).rotate(x.cuda(), rope)

    with pytest.raises(AssertionError, match="CUDA"):
        forward_with(npu, rotate=planted)


def test_autocast_without_a_format_is_float16_and_raises(npu: torch.device, expected_hits: list[str]) -> None:
    def planted(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        with torch.autocast("npu"):
            return choose(npu).rms_norm(x, weight, eps)

    expected_hits.append("autocast")
    with pytest.raises(guard.Float16Autocast):
        forward_with(npu, rms_norm=planted)


def test_autocast_to_bfloat16_passes(npu: torch.device) -> None:
    def named(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        with torch.autocast("npu", dtype=torch.bfloat16):
            return choose(npu).rms_norm(x, weight, eps)

    assert forward_with(npu, rms_norm=named).isfinite().all()


def test_an_exact_gelu_is_not_what_the_device_computes(npu: torch.device) -> None:
    x = torch.linspace(-3, 3, 101)
    assert_equal(F.gelu(x.to(npu), approximate="tanh"), F.gelu(x, approximate="tanh"))
    with pytest.raises(AssertionError, match="off by"):
        assert_equal(F.gelu(x.to(npu)), F.gelu(x))


def test_convolutions_moved_before_private_formats_are_off_raise(
    npu: torch.device, expected_hits: list[str]
) -> None:
    torch.npu.set_compile_mode(jit_compile=True)  # type: ignore[attr-defined]
    expected_hits.append("npu_format_cast")
    try:
        with pytest.raises(guard.NoReference, match="npu_format_cast"):
            nn.Conv3d(3, 4, 3).to(npu)
    finally:
        torch.npu.set_compile_mode(jit_compile=False)  # type: ignore[attr-defined]
    nn.Conv3d(3, 4, 3).to(npu)


def test_random_numbers_of_the_device_raise(npu: torch.device) -> None:
    with pytest.raises(NotImplementedError, match="no random numbers of the device"):
        torch.randn(3, device=npu, generator=torch.Generator(npu))


def test_an_average_over_ranks_raises(npu: torch.device) -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group(backend_for(npu), store=store, rank=0, world_size=1)
    try:
        total = torch.ones(3, device=npu)
        dist.all_reduce(total)
        assert total.tolist() == [1.0, 1.0, 1.0]
        with pytest.raises(NotImplementedError, match="AVG"):
            dist.all_reduce(total, dist.ReduceOp.AVG)
    finally:
        dist.destroy_process_group()


def test_it_is_known_even_where_it_was_caught_in_a_child(expected_hits: list[str]) -> None:
    script = """
import torch
try:
    torch.ops.npu.npu_swiglu(torch.ones(4, device="npu"))
except NotImplementedError:
    pass
"""
    expected_hits.append("npu_swiglu")
    subprocess.run([sys.executable, "-c", script], check=True)
