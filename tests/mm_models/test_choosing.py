"""Which form of each operation a device gets."""

import pytest
import torch

import mm_models
from mm_config.families.tiny import TINY
from mm_config.schema.errors import UserError
from mm_config.specs.parallel import AttentionImpl
from mm_models.ops import attention
from mm_models.ops.choosing import REFERENCE, Ops, choose


def test_the_plain_attention_can_be_asked_for() -> None:
    assert choose("cpu").attention is attention.sdpa
    assert choose("cpu", AttentionImpl.REFERENCE).attention is attention.reference


@pytest.mark.parametrize("wanted", ["cudnn", "flash_2", "flash_3", "flash_4", "npu", "sage"])
def test_what_a_device_has_not_is_refused_with_what_it_has(wanted: str) -> None:
    with pytest.raises(UserError) as refused:
        choose("cpu", AttentionImpl(wanted))
    message = (
        f"spec.runtime.attention: is {wanted}, which is not available on cpu in float32 here; "
        f"available: auto, sdpa, reference; {wanted} needs "
    )
    assert str(refused.value).startswith(message) and str(refused.value) != message


def test_a_choice_can_be_shown_and_recorded() -> None:
    assert REFERENCE.names() == dict.fromkeys(
        ("attention", "rms_norm", "rotate", "modulate", "gate_residual"), "reference"
    )
    assert choose("cpu").names()["attention"] == "sdpa"


def test_a_network_calls_the_forms_that_it_is_given() -> None:
    called: list[torch.Size] = []

    def counted(query_BSHD: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        called.append(query_BSHD.shape)
        return attention.sdpa(query_BSHD, *others)

    network = mm_models.build(TINY.model, "cpu", ops=Ops(attention=counted))
    mm_models.initialize(network, seed=0)
    network(torch.randn(1, TINY.model.in_channels, 1, 4, 4), torch.tensor([5.0]), torch.randn(1, 3, 64))
    assert len(called) == 2 * 3
