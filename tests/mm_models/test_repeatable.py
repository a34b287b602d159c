"""Deterministic computation: what is set for a block, and what is refused."""

import os

import pytest
import torch
import torch._inductor.config as inductor
import torch.utils.deterministic as memory

from mm_config.schema.errors import UserError
from mm_config.specs.parallel import NO_COMPILE, AttentionImpl, CompileMode, CompileSpec
from mm_models.carried_out import determinism_problems
from mm_models.repeatable import CUBLAS, deterministic

CPU = torch.device("cpu")


def switches() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        getattr(memory, "fill_uninitialized_memory"),  # noqa: B009
        os.environ.get(CUBLAS),
    )


def test_a_block_is_deterministic_and_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CUBLAS, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    before = switches()
    with deterministic(CPU, wanted=False):
        assert switches() == before
    # The switches of a CUDA device can be set, and the variable exported, without one.
    with pytest.raises(ValueError, match="mine"), deterministic(torch.device("cuda"), wanted=True):
        assert switches() == (True, False, False, True, True, ":4096:8")
        assert inductor.deterministic
        raise ValueError("mine")
    assert switches() == before
    assert not inductor.deterministic


def test_a_workspace_that_sums_in_any_order_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS, ":16:8")
    with deterministic(torch.device("cuda"), wanted=True):
        assert os.environ[CUBLAS] == ":16:8"
    monkeypatch.setenv(CUBLAS, ":0:0")
    with (
        pytest.raises(
            UserError, match=r"^spec\.runtime\.deterministic: needs CUBLAS_.*shell has :0:0; unset"
        ),
        deterministic(torch.device("cuda"), wanted=True),
    ):
        raise AssertionError("the block is not entered")
    assert os.environ[CUBLAS] == ":0:0"


def test_an_operation_without_a_deterministic_form_is_named() -> None:
    values = torch.ones(4, requires_grad=True)
    pattern = r"^spec\.runtime\.deterministic: put_ does not have a deterministic implementation on cpu$"
    with pytest.raises(UserError, match=pattern), deterministic(CPU, wanted=True):
        values.detach().put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("attention", "compiled", "paths"),
    [
        (AttentionImpl.SDPA, NO_COMPILE, []),
        (AttentionImpl.CUDNN, NO_COMPILE, ["runtime.attention"]),
        (AttentionImpl.AUTO, CompileSpec(enabled=True), []),
        (AttentionImpl.AUTO, CompileSpec(enabled=True, mode=CompileMode.MAX_AUTOTUNE), ["compile.mode"]),
    ],
)
def test_what_has_no_deterministic_form_is_refused_by_name(
    attention: AttentionImpl, compiled: CompileSpec, paths: list[str]
) -> None:
    assert [problem.path for problem in determinism_problems(True, attention, compiled)] == paths
    assert list(determinism_problems(False, attention, compiled)) == []
