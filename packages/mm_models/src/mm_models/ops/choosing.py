"""The form of each operation, chosen once for a device and a spec."""

from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from mm_config.errors import Problem, UserError
from mm_config.specs.parallel import AttentionImpl
from mm_models.ops import attention, gate_residual, modulate, rms_norm, rope

Form = Callable[..., Tensor]


@attrs.frozen
class Ops:
    """What a network calls; each field is a form of the operation's module, which tells its arguments."""

    attention: Form = attention.reference
    rms_norm: Form = rms_norm.reference
    rotate: Form = rope.reference
    modulate: Form = modulate.reference
    gate_residual: Form = gate_residual.reference

    def names(self) -> dict[str, str]:
        """Each operation's form, for people and for the record of a run."""
        return {field.name: getattr(self, field.name).__name__ for field in attrs.fields(Ops)}


REFERENCE = Ops()
"""Every operation in its plain form."""


def choose(
    device: torch.device | str,
    wanted: AttentionImpl = AttentionImpl.AUTO,
    path: str = "spec.runtime.attention",
) -> Ops:
    """The forms that networks use on a device.

    Args:
        device: Where the networks run.
        wanted: The implementation of attention; `AUTO` takes the fastest exact one there is.
        path: Canonical path of the field that holds it, for the error.

    Raises:
        UserError: The device or this installation has no such attention; what there is, is listed.
    """
    kind = torch.device(device).type
    forms = available(kind)
    if wanted is AttentionImpl.AUTO:
        chosen = next(iter(forms.values()))
    elif wanted in forms:
        chosen = forms[wanted]
    else:
        known = ", ".join(impl.value for impl in (AttentionImpl.AUTO, *forms))
        raise UserError(
            Problem(path, f"is {wanted.value}, which is not available on {kind} here; available: {known}")
        )
    return attrs.evolve(_OTHERS.get(kind, REFERENCE), attention=chosen)


_OTHERS: dict[str, Ops] = {"npu": Ops(rms_norm=rms_norm.npu, rotate=rope.npu)}
"""The other operations' forms of each kind of device; the plain ones elsewhere."""


def available(kind: str) -> dict[AttentionImpl, Form]:
    """The implementations of attention that a kind of device has here, the fastest exact one first."""
    found: dict[AttentionImpl, Form] = {}
    if kind == "cuda":
        major, _ = torch.cuda.get_device_capability()
        if major == 9 and attention.installed("flash_attn_interface"):
            found[AttentionImpl.FLASH_3] = attention.flash_3
        found[AttentionImpl.SDPA] = attention.sdpa
        if torch.backends.cudnn.is_available() and major >= 8:
            found[AttentionImpl.CUDNN] = attention.cudnn
        if major >= 8 and attention.installed("flash_attn"):
            found[AttentionImpl.FLASH_2] = attention.flash_2
    else:
        if kind == "npu":
            found[AttentionImpl.NPU] = attention.npu
        found[AttentionImpl.SDPA] = attention.sdpa
    found[AttentionImpl.REFERENCE] = attention.reference
    return found
