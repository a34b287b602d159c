"""What picking the device sets in torch_npu, and the operations that Ascend computes in another way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_models import device
from mm_models.ops import attention, gelu
from mm_models.seeding import generator
from mm_train import train
from tests.npu_standin.parity import assert_equal
from tests.npu_standin.trainings import spec_of


def option(name: str) -> str:
    """An option of torch_npu as its library has it."""
    import torch_npu  # type: ignore[import-not-found]

    return torch_npu._C._npu_getOption(name).decode()


def test_picking_it_turns_off_compilation_at_run_time_private_formats_and_rounding(npu: torch.device) -> None:
    module: Any = torch.get_device_module(npu)
    assert npu == torch.device("npu", 0) and module.is_jit_compile_false()
    assert option("ALLOW_INTERNAL_FORMAT") == "disable"
    assert not module.matmul.allow_hf32 and not module.conv.allow_hf32
    device.allow_tf32(npu, True)
    assert module.matmul.allow_hf32 and module.conv.allow_hf32
    device.pick("npu")
    assert not module.matmul.allow_hf32 and not module.conv.allow_hf32


def test_training_rounds_products_where_its_spec_allows_it(npu: torch.device, tmp_path: Path) -> None:
    module: Any = torch.get_device_module(npu)
    for allowed in (True, False):
        spec = spec_of(f"rounded_{allowed}", "npu", {"precision.allow_tf32": allowed, "schedule.steps": 1})
        train(replace(spec, "schedule.warmup_steps", 0), RunOptions(runs_dir=tmp_path))
        assert module.matmul.allow_hf32 is module.conv.allow_hf32 is allowed


def test_an_environment_that_hides_errors_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INF_NAN_MODE_ENABLE", "0")
    with pytest.raises(UserError, match="INF_NAN_MODE_ENABLE: is 0, which turns inf into 65504"):
        device.pick("npu")


def test_events_tell_how_long_it_took(npu: torch.device) -> None:
    module: Any = torch.get_device_module(npu)
    begun, ended = (module.Event(enable_timing=True) for _ in range(2))
    begun.record()
    time.sleep(0.02)
    ended.record()
    ended.synchronize()
    assert 20 <= begun.elapsed_time(ended) < 20_000


@pytest.mark.parametrize("shapes", [((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((3, 4), (2, 4, 5))])
def test_gradients_of_products(npu: torch.device, shapes: tuple[tuple[int, ...], ...]) -> None:
    a, b = (torch.randn(shape, generator=generator("products", n)) for n, shape in enumerate(shapes))
    found: list[list[torch.Tensor]] = []
    for where in (torch.device("cpu"), npu):
        ours, theirs = (one.detach().to(where).requires_grad_() for one in (a, b))
        (ours @ theirs).square().sum().backward()
        assert ours.grad is not None and theirs.grad is not None
        found.append([ours.grad.cpu(), theirs.grad.cpu()])
    for expected, actual in zip(*found, strict=True):
        assert_equal(actual, expected)


def test_exact_gelu_is_exact_where_torchs_own_is_the_tanh_form(npu: torch.device) -> None:
    x = torch.linspace(-6, 6, 1201)
    moved = x.to(npu).requires_grad_()
    assert (F.gelu(moved).cpu() - F.gelu(x)).abs().max() > 1e-4
    out = gelu.exact(moved)
    assert_equal(out.detach(), F.gelu(x))
    (gradient,) = torch.autograd.grad(out.sum(), moved)
    expected = x.requires_grad_()
    assert_equal(gradient, torch.autograd.grad(F.gelu(expected).sum(), expected)[0])


@pytest.mark.parametrize("shape", [(7,), (5, 7), (1, 1, 1, 7), (2, 1, 1, 7), (1, 3, 5, 7), (2, 3, 5, 7)])
def test_attention_takes_masks_of_every_shape(shape: tuple[int, ...], npu: torch.device) -> None:
    draws = generator("mask", *shape)
    query, key = torch.randn(2, 5, 3, 8, generator=draws), torch.randn(2, 7, 3, 8, generator=draws)
    mask = torch.rand(shape, generator=draws) > 0.5
    mask[..., 0] = True
    found = attention.npu(query.to(npu), key.to(npu), key.to(npu), mask.to(npu))
    assert_equal(found, attention.reference(query, key, key, mask))
