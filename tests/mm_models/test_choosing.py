"""Which form of each operation a device gets."""

import attrs
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


@pytest.mark.parametrize("wanted", ["cudnn", "flash_2", "flash_3", "npu"])
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
    names = choose("cpu").names()
    assert names["attention"] == "sdpa" and "self_attention" not in names
    apart = attrs.evolve(choose("cpu"), self_attention=attention.reference).names()
    assert apart == names | {"self_attention": "reference"}


def test_a_network_calls_the_forms_that_it_is_given() -> None:
    called: list[int] = []

    def counted(query_BSHD: torch.Tensor, key_BLHD: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        called.append(key_BLHD.shape[1])
        return attention.sdpa(query_BSHD, key_BLHD, *others)

    def called_with(ops: Ops) -> list[int]:
        """How many keys each call of the counted form had."""
        called.clear()
        network = mm_models.build(TINY.model, "cpu", ops=ops)
        mm_models.initialize(network, seed=0)
        network(torch.randn(1, TINY.model.in_channels, 1, 8, 8), torch.tensor([5.0]), torch.randn(1, 3, 64))
        return called

    assert called_with(Ops(attention=counted)) == [4, 3] * 3
    assert called_with(attrs.evolve(choose("cpu"), self_attention=counted)) == [4] * 3
    assert called_with(attrs.evolve(choose("cpu"), attention=counted)) == [3] * 3
