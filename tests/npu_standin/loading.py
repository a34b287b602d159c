"""Loads the stand-in into a process: what `import torch` calls in the environment of `build.environment`."""

import ctypes

from tests.npu_standin import build


def load() -> None:
    """Loads the stub, torch_npu over it, and kernels for what torch_npu would run on its hardware."""
    for name in (build.LIBRARY, *build.OTHERS):
        ctypes.CDLL(str(build.stub_folder() / f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL)
    import torch_npu  # noqa: F401  # type: ignore[import-not-found]

    from tests.npu_standin import device, guard, hccl

    device.register()
    guard.register()
    hccl.register()
