"""GELU in its exact form, which Ascend's own kernel does not compute."""

import torch

from mm_models.ops import gelu


def test_the_definition_equals_the_kernel_and_not_its_tanh_form() -> None:
    x = torch.linspace(-6, 6, 1201)
    torch.testing.assert_close(gelu.by_erf(x), torch.nn.functional.gelu(x), rtol=1e-6, atol=1e-6)
    tanh = torch.nn.functional.gelu(x, approximate="tanh")
    assert float((gelu.by_erf(x) - tanh).abs().max()) > 1e-4
    narrow = gelu.by_erf(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow, torch.nn.functional.gelu(x.bfloat16()))


def test_gradients_are_numerically_right() -> None:
    x = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gelu.by_erf, (x,))
