"""The one place that asks for a device."""

import os

import torch

from mm_config.errors import Problem, UserError
from mm_models import npu


def pick(name: str = "auto", path: str = "spec.runtime.device") -> torch.device:
    """The device to work on, made the current one; under torchrun the one of this process's local rank.

    Args:
        name: `auto` (an accelerator if there is one, else the CPU), `cpu`, `cuda`, `npu`, ...
        path: Canonical path of the field that holds the name, for the error.

    Raises:
        UserError: The machine has no such device, or it must not be used as it is set up.
    """
    npu.refuse_beside_cuda()
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    available = ("cpu",) if accelerator is None else ("cpu", accelerator.type)
    if name != "auto" and name not in available:
        allowed = ", ".join(("auto", *available))
        raise UserError(Problem(path, f"device {name!r} is not available here; available: {allowed}"))
    if accelerator is None or name == "cpu":
        return torch.device("cpu")
    if accelerator.type == "npu":
        npu.prepare()
    index = int(os.environ.get("LOCAL_RANK", "0")) % torch.accelerator.device_count()
    # Collectives and new streams go to the current device, which is the first one unless it is set.
    torch.accelerator.set_device_index(index)
    return torch.device(accelerator.type, index)


def allow_tf32(device: torch.device, allowed: bool) -> None:
    """Whether products of float32 may round their factors to 10 bits: TF32 on CUDA, HF32 on an NPU.

    A CPU multiplies float32 as it is.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed
    elif device.type == "npu":
        npu.round_factors(allowed)
