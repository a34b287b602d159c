"""The one place that asks for a device, sets it up, and knows what each kind can do."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec

import torch

from mm_config.console import set_by_torchrun
from mm_config.npu import refused
from mm_config.schema import Problem, UserError


def pick(name: str = "auto", path: str = "spec.runtime.device") -> torch.device:
    """The device to work on, made the current one; under torchrun the one of this process's local rank.

    Args:
        name: `auto` (an accelerator if there is one, else the CPU), `cpu`, `cuda`, `npu`, ...
        path: Canonical path of the field that holds the name, for the error.

    Raises:
        UserError: The machine has no such device, or it must not be used as it is set up.
    """
    _refuse_npu_beside_cuda()
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    available = ("cpu",) if accelerator is None else ("cpu", accelerator.type)
    if name != "auto" and name not in available:
        allowed = ", ".join(("auto", *available))
        of_a_run = path.startswith("spec.")
        told = "; mm doctor --device npu says what is missing" if name == "npu" and of_a_run else ""
        raise UserError(Problem(path, f"device {name!r} is not available here; available: {allowed}{told}"))
    if accelerator is None or name == "cpu":
        return torch.device("cpu")
    if accelerator.type == "npu":
        prepare_npu()
    index = set_by_torchrun("LOCAL_RANK", 0) % torch.accelerator.device_count()
    # Collectives and new streams go to the current device, which is the first one unless it is set.
    torch.accelerator.set_device_index(index)
    return torch.device(accelerator.type, index)


def prepare_npu() -> None:
    """Sets what torch_npu would otherwise decide by itself, before the first tensor is moved.

    Raises:
        UserError: The environment hides errors or changes torch, see `refused`.
    """
    if found := list(refused(os.environ)):
        raise UserError(found)
    # With either of them on, a module's convolutions are cast to private formats as they are moved, on some
    # chips through float16.
    torch.npu.set_compile_mode(jit_compile=False)  # type: ignore[attr-defined]
    torch.npu.config.allow_internal_format = False  # type: ignore[attr-defined]
    # It is on for convolutions unless somebody says otherwise.
    _round_npu_factors(False)


def allow_tf32(device: torch.device, allowed: bool) -> None:
    """Whether products of float32 may round their factors to 10 bits: TF32 on CUDA, HF32 on an NPU.

    A CPU multiplies float32 as it is.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed
    elif device.type == "npu":
        _round_npu_factors(allowed)


def scales_while_reducing(device: torch.device) -> bool:
    """Whether sums over ranks can be scaled on their way: NCCL can, neither gloo nor HCCL."""
    return device.type == "cuda"


def updates_in_one_kernel(device: torch.device) -> bool:
    """Whether torch has one kernel for an optimizer's whole update."""
    return device.type in ("cpu", "cuda", "npu")


def multiplies_by_cublas(device: torch.device) -> bool:
    """Whether products need cuBLAS's workspace to be fixed, so that they are the same in each run."""
    return device.type == "cuda"


def multiplies_fp8(device: torch.device) -> bool:
    """Whether it has products of fp8: CUDA from capability 8.9."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def clock_of(device: torch.device) -> Callable[[], int] | None:
    """Asks for the clock of the multiprocessors in MHz; None where the device or its tools don't tell."""
    if device.type != "cuda":
        return None
    # NVIDIA's library is missing, or the driver doesn't tell.
    with suppress(Exception):
        torch.cuda.clock_rate(device)
        return partial(torch.cuda.clock_rate, device)
    return None


def pinned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor in memory that an accelerator copies from while it computes; as it is where there is none."""
    return tensor if device.type == "cpu" else tensor.pin_memory()


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on a device, without waiting for what the device is at."""
    return tensor if device.type == "cpu" else pinned(tensor, device).to(device, non_blocking=True)


def side_stream(device: torch.device) -> torch.Stream | None:
    """A queue of work beside the one that computes; None on a CPU, which has one."""
    return None if device.type == "cpu" else torch.Stream(device)


def pinned_like(tensor: torch.Tensor) -> torch.Tensor:
    """Memory of the host for a tensor's values, pinned where the tensor lies elsewhere."""
    return torch.empty_like(tensor, device="cpu", pin_memory=tensor.device.type != "cpu")


@contextmanager
def beside(side: torch.Stream | None, tensor: torch.Tensor) -> Iterator[None]:
    """Work with a tensor on a side stream, after what has been asked of the device so far."""
    if side is None:
        yield
        return
    side.wait_stream(torch.accelerator.current_stream(side.device))
    with side:
        yield
    tensor.record_stream(side)


def await_moved(side: torch.Stream, tensors: Iterable[torch.Tensor]) -> None:
    """Has the device compute with tensors only after a side stream has filled them."""
    current = torch.accelerator.current_stream(side.device)
    current.wait_stream(side)
    for tensor in tensors:
        tensor.record_stream(current)  # Its memory is not given away before.


def _round_npu_factors(allowed: bool) -> None:
    torch.npu.matmul.allow_hf32 = allowed  # type: ignore[attr-defined]
    torch.npu.conv.allow_hf32 = allowed  # type: ignore[attr-defined]


def _refuse_npu_beside_cuda() -> None:
    """torch_npu and a torch for CUDA exclude each other: which device there is depends on the import's luck.

    Raises:
        UserError: Both are installed.
    """
    if torch.version.cuda and find_spec("torch_npu"):
        raise UserError(
            f"torch_npu is installed beside torch {torch.__version__}, which is built for CUDA; they exclude "
            "each other: uninstall torch_npu, or install torch's CPU build for the NPU"
        )
