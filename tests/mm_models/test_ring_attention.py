"""Ring attention and Ulysses by themselves: derivatives, rounding, and what they send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck
from torch.autograd.function import Function

from mm_models.carried_out import GIVE_LSE
from mm_models.ops import attention
from mm_models.ops.choosing import REFERENCE, Ops, choose
from mm_models.ops.partial_attention import FORMS
from mm_models.parallel import Context, over_ranks
from tests.forked_ranks import RunRanks
from tests.mm_models.shared_tokens import context_of


class Replicated(Function):
    """An input that all ranks have: its gradient is the mean of theirs, who each have the whole output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient / dist.get_world_size()


def shared(context: Context, ops: Ops) -> Callable[..., Tensor]:
    """Attention of whole tensors `[B, S, H, D]`, by all ranks."""
    attend = over_ranks(ops, context).self_attention

    def whole(*inputs: Tensor) -> Tensor:
        tokens = inputs[0].shape[1]
        context.tokens = tokens
        parts = [context.cut(Replicated.apply(one), 1) for one in inputs]
        return context.gather(attend(*parts), tokens)

    return whole


def drawn(tokens: int, dtype: torch.dtype, heads: int = 2, width: int = 8) -> list[Tensor]:
    """Queries, keys, values and the gradient of what comes out."""
    generator = torch.Generator().manual_seed(tokens)
    return [torch.randn(2, tokens, heads, width, generator=generator).to(dtype) for _ in range(4)]


def passes(attend: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The output and the gradients of queries, keys and values."""
    leaves = [one.detach().requires_grad_() for one in inputs[:3]]
    out = attend(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, inputs[3])]


def _differentiated(rank: int, ranks: int, form: attention.Form) -> None:
    attend = shared(context_of(ring=ranks), Ops(attention=form))
    leaves = [one[:1, :, :, :2].contiguous().requires_grad_() for one in drawn(3, torch.float64)[:3]]
    assert gradcheck(attend, leaves)


@pytest.mark.parametrize(("ranks", "form"), [(2, attention.reference), (4, attention.sdpa)])
def test_the_derivative_of_a_ring_is_that_of_finite_differences(
    run_ranks: RunRanks, ranks: int, form: attention.Form
) -> None:
    """Three tokens: of two ranks one has padding, of four one has nothing else."""
    run_ranks(_differentiated, ranks, form, ranks=ranks)


def _rounded(rank: int) -> None:
    for degrees in ({"ring": 4}, {"ulysses": 4}, {"ring": 2, "ulysses": 2}):
        attend = shared(context_of(**degrees), choose("cpu"))
        inputs = drawn(70, torch.bfloat16, heads=4)
        exact = passes(attention.reference, [one.double() for one in inputs])
        ours, plain = passes(attend, inputs), passes(attention.sdpa, inputs)
        for found, other, expected in zip(ours, plain, exact, strict=True):
            error, least = ((one.double() - expected).norm() for one in (found, other))
            assert found.dtype is torch.bfloat16
            assert error <= 1.5 * least, f"{degrees}: {error / least:.2f}"


def test_bfloat16_errs_hardly_more_than_in_one_process(run_ranks: RunRanks) -> None:
    """A ring of four merges four rounded results: 1.2 times the error."""
    run_ranks(_rounded, ranks=4)


def _counted(rank: int, moved: dict[str, list[tuple[str, int]]]) -> None:
    """Holds messages of a rank, and their bytes to others, against numbers."""
    sent: list[tuple[str, int]] = []
    exchange, point_to_point = dist.all_to_all_single, dist.batch_isend_irecv

    def exchanged(received: Tensor, parts: Tensor, group: Any) -> None:
        sent.append(("all_to_all", parts.nbytes * (group.size() - 1) // group.size()))
        exchange(received, parts, group=group)

    def passed(ops: list[dist.P2POp]) -> list[dist.Work]:
        sent.extend(("send", one.tensor.nbytes) for one in ops if one.op is dist.isend)
        return point_to_point(ops)

    dist.all_to_all_single, dist.batch_isend_irecv = exchanged, passed  # type: ignore[assignment]
    for name, degrees in {
        "ulysses": {"ulysses": 4},
        "ring": {"ring": 4},
        "usp": {"ring": 2, "ulysses": 2},
    }.items():
        attend = shared(context_of(**degrees), choose("cpu"))
        sent.clear()
        passes(attend, drawn(15, torch.bfloat16, heads=4))
        assert sent == moved[name], f"{name}: {sent}"


def test_each_way_sends_what_is_counted_by_hand(run_ranks: RunRanks) -> None:
    """Fifteen tokens are four on each of four ranks, in two samples of four heads of eight values."""
    local = 2 * 4 * 4 * 8 * 2  # Bytes of one rank's queries, or keys, or values, in bfloat16.
    three_quarters, half = local * 3 // 4, local // 2
    moved = {
        # Queries, keys and values, then what comes out; backwards the other way round.
        "ulysses": [("all_to_all", count * three_quarters) for count in (3, 1, 1, 3)],
        # Keys and values three times each way; their gradients, in float32, come home from the third rank.
        "ring": [("send", 2 * local)] * 3 + [("send", size * local) for size in (2, 2, 4, 2, 4, 4)],
        "usp": [
            *(("all_to_all", 3 * half), ("send", 2 * local), ("all_to_all", half)),
            *(("all_to_all", half), ("send", 2 * local), ("send", 4 * local), ("all_to_all", 3 * half)),
        ],
    }
    run_ranks(_counted, moved, ranks=4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_cuda_kernels_take_what_they_are_called_with(dtype: torch.dtype) -> None:
    """By their schemas and shapes alone; 16 bits and more go to kernels of their own."""
    with FakeTensorMode():
        query, key = (torch.empty(2, tokens, 3, 64, dtype=dtype, device="cuda") for tokens in (37, 41))
        out, lse = FORMS["sdpa"].forward(query, key, key)
        assert (out.shape, out.dtype, out.device) == (query.shape, dtype, query.device)
        assert (lse.shape, lse.dtype) == ((2, 3, 37), torch.float32)
        found = FORMS["sdpa"].backward(query, query, key, key, out, lse)
        assert [one.shape for one in found] == [query.shape, key.shape, key.shape]


def test_masks_are_refused() -> None:
    attend = over_ranks(REFERENCE, Context(None, None)).self_attention
    with pytest.raises(TypeError):
        attend(*drawn(3, torch.float32)[:3], torch.ones(3, 3, dtype=torch.bool))


def test_a_spec_may_ask_for_the_forms_that_there_are_and_their_names_are_recorded() -> None:
    assert sorted(FORMS) == sorted(one.value for one in GIVE_LSE)
    assert over_ranks(REFERENCE, None) is REFERENCE
