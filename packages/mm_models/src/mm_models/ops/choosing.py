"""The form of each operation, chosen once for a device and a spec."""

from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from mm_config.schema import Problem, UserError
from mm_config.specs import ApproximateAttention, AttentionImpl
from mm_models.ops import approximate_attention, attention, gate_residual, modulate, rms_norm, rope

Form = Callable[..., Tensor]


@attrs.frozen
class Ops:
    """What a network calls; each field is a form of the operation's module, which tells its arguments."""

    attention: Form = attention.reference
    """Of tokens to a text, or to an image."""
    rms_norm: Form = rms_norm.reference
    """Of queries and keys."""
    rotate: Form = rope.reference
    """By the tokens' places."""
    modulate: Form = modulate.reference
    """Normalizes, scales and shifts the residual stream."""
    gate_residual: Form = gate_residual.reference
    """Adds a branch to the residual stream."""
    self_attention: Form = attrs.field(
        default=attrs.Factory(lambda self: self.attention, takes_self=True)  # type: ignore[attr-defined]
    )
    """Of a sample's tokens to each other; as `attention`, unless ranks share the tokens or it is sparse."""

    def names(self) -> dict[str, str]:
        """Each operation's form, for people and for the record of a run; equal attentions once."""
        forms = {field.name: getattr(self, field.name) for field in attrs.fields(Ops)}
        if self.self_attention is self.attention:
            del forms["self_attention"]
        return {operation: form.__name__ for operation, form in forms.items()}


REFERENCE = Ops()
"""Every operation in its plain form."""


def choose(
    device: torch.device | str,
    wanted: AttentionImpl = AttentionImpl.AUTO,
    dtype: torch.dtype = torch.float32,
    path: str = "spec.runtime.attention",
) -> Ops:
    """The forms that networks use on a device.

    Args:
        device: Where the networks run.
        wanted: The implementation of attention; `AUTO` takes the fastest exact one there is.
        dtype: Of queries, keys and values; some kernels take 16-bit values only.
        path: Canonical path of the field that holds `wanted`, for the error.

    Raises:
        UserError: The device or this installation has no such attention; what there is, is listed.
    """
    kind = str(device).partition(":")[0]
    forms = available(kind, dtype)
    if wanted is AttentionImpl.AUTO:
        chosen = next(iter(forms.values()))
    elif wanted in forms:
        chosen = forms[wanted]
    else:
        known = ", ".join(impl.value for impl in (AttentionImpl.AUTO, *forms))
        where = f"on {kind} in {str(dtype).removeprefix('torch.')} here"
        message = f"is {wanted.value}, which is not available {where}; available: {known}"
        raise UserError(Problem(path, f"{message}; {wanted.value} needs {_NEEDS[wanted]}"))
    return attrs.evolve(_OTHERS.get(kind, REFERENCE), attention=chosen, self_attention=chosen)


def approximated(
    ops: Ops,
    device: torch.device | str,
    wanted: ApproximateAttention | None,
    dtype: torch.dtype,
    path: str = "spec.approximate_attention",
) -> Ops:
    """The same forms with attention that is faster and not exact: kernels on CUDA, its plain form on a CPU.

    Args:
        ops: As `choose` has them.
        device: Where the networks run.
        wanted: What takes the place of attention, to texts and images too; None leaves it exact.
        dtype: Of queries, keys and values.
        path: Canonical path of the field that holds `wanted`, for the error.

    Raises:
        UserError: The device or this installation has no such attention.
    """
    if wanted is None:
        return ops
    kind = str(device).partition(":")[0]
    plain, kernels, module, capability, needs = _APPROXIMATE[wanted]
    if kind == "cpu":
        return attrs.evolve(ops, attention=plain, self_attention=plain)
    there = kind == "cuda" and dtype.itemsize == 2 and attention.installed(module)
    if not there or torch.cuda.get_device_capability() < capability:
        where = f"on {kind} in {str(dtype).removeprefix('torch.')} here"
        raise UserError(Problem(path, f"is {wanted.value}, which is not available {where}; it needs {needs}"))
    return attrs.evolve(ops, attention=kernels, self_attention=kernels)


def described(ops: Ops) -> str:
    """`attention sdpa, rms_norm fused, ...`."""
    return ", ".join(f"{operation} {form}" for operation, form in ops.names().items())


_SIXTEEN = "16-bit values on CUDA"
_NEEDS = {
    AttentionImpl.CUDNN: f"cuDNN and {_SIXTEEN}",
    AttentionImpl.FLASH_2: f"flash-attn (pip install 'mm-models[flash]') and {_SIXTEEN}",
    AttentionImpl.FLASH_3: f"FlashAttention's folder hopper, built, and {_SIXTEEN} of a Hopper GPU",
    AttentionImpl.NPU: "an Ascend NPU and torch_npu",
}
"""What is missing where an implementation is not available; the others are everywhere."""

_APPROXIMATE = {
    ApproximateAttention.SAGE: (
        approximate_attention.sage_reference,
        approximate_attention.sage,
        approximate_attention.SAGE,
        (8, 0),
        # Release 1 counts keys that are not there where their number is no multiple of 64.
        "sageattention 2 (built from https://github.com/thu-ml/SageAttention; PyPI has release 1), "
        f"{_SIXTEEN} and a capability of 8.0",
    ),
    ApproximateAttention.FLASH_4: (
        approximate_attention.flash_4_reference,
        approximate_attention.flash_4,
        approximate_attention.FLASH_4,
        (10, 0),
        f"FlashAttention 4 (pip install --pre flash-attn-4), {_SIXTEEN} and a capability of 10.0",
    ),
}
"""The plain form, the kernels, their module, the least capability, and all that they need, for people."""

_OTHERS: dict[str, Ops] = {
    "cpu": Ops(
        rms_norm=rms_norm.fused,
        rotate=rope.fused,
        modulate=modulate.fused,
        gate_residual=gate_residual.fused,
    ),
    "cuda": Ops(
        rms_norm=rms_norm.compiled,
        rotate=rope.compiled,
        modulate=modulate.compiled,
        gate_residual=gate_residual.compiled,
    ),
    "npu": Ops(rms_norm=rms_norm.npu, rotate=rope.npu),
}
"""The other operations' forms of each kind of device; the plain ones elsewhere."""


def available(kind: str, dtype: torch.dtype) -> dict[AttentionImpl, attention.Form]:
    """The implementations of attention that a kind of device has here, the fastest exact one first."""
    if kind == "cuda":
        found = _available_on_cuda(dtype.itemsize == 2)
    elif kind == "npu":
        found = {AttentionImpl.NPU: attention.npu, AttentionImpl.SDPA: attention.sdpa}
    else:
        found = {AttentionImpl.SDPA: attention.sdpa}
    return {**found, AttentionImpl.REFERENCE: attention.reference}


def _available_on_cuda(sixteen_bits: bool) -> dict[AttentionImpl, attention.Form]:
    """FlashAttention 3 leads on Hopper, then cuDNN, which PyTorch is made to try first."""
    major, _ = torch.cuda.get_device_capability()
    found: dict[AttentionImpl, attention.Form] = {}
    if sixteen_bits and major == 9 and attention.installed(attention.FLASH_3):
        found[AttentionImpl.FLASH_3] = attention.flash_3
    found[AttentionImpl.SDPA] = attention.sdpa
    if sixteen_bits and major >= 8 and torch.backends.cudnn.is_available():
        found[AttentionImpl.CUDNN] = attention.cudnn
    if sixteen_bits and major >= 8 and attention.installed(attention.FLASH_2):
        found[AttentionImpl.FLASH_2] = attention.flash_2
    return found
