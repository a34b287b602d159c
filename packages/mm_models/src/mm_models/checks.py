"""What `mm doctor` asks of this package: torch, a device that computes, diffusers and transformers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

from mm_config.doctor import BROKEN, OK, Check, Checks, DoctorOptions

if TYPE_CHECKING:
    import torch


def torch_import(_: DoctorOptions) -> Iterator[Check]:
    """Whether torch can be imported, and for what it was built."""
    import torch

    builds = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    built = " ".join(f"{name} {found}" for name, found in builds.items() if found)
    yield Check("torch", OK, f"{torch.__version__} ({built or 'cpu'})")


def devices(options: DoctorOptions) -> Iterator[Check]:
    """The device that was asked for, else the one that `auto` stands for, with a product computed on it."""
    import torch

    from mm_models.device import pick

    device = pick(options.device, "--device")
    ones = torch.ones(64, 64, device=device)
    if not torch.equal((ones @ ones).cpu(), torch.full((64, 64), 64.0)):
        yield Check("devices", BROKEN, f"{device} computes a wrong product of matrices")
    elif device.type == "cpu":
        threads = torch.get_num_threads()
        about = f"cpu with {threads} thread{'' if threads == 1 else 's'}, no accelerator"
        yield Check("devices", OK, about)
    else:
        yield Check("devices", OK, _named(device))


def _named(device: torch.device) -> str:
    import torch

    count = torch.accelerator.device_count()
    describe = getattr(torch.get_device_module(device), "get_device_properties", None)
    if describe is None:
        return f"{count} {device.type}"
    found = [describe(index) for index in range(count)]
    names = ", ".join(f"{one.name} ({one.total_memory / 2**30:.0f} GiB)" for one in found)
    return f"{count} {device.type}: {names}"


def autoencoder_library(_: DoctorOptions) -> Iterator[Check]:
    """Whether Wan's autoencoder can be imported."""
    importlib.import_module("diffusers.models.autoencoders.autoencoder_kl_wan")
    yield Check("diffusers", OK, version("diffusers"))


def text_encoder_library(_: DoctorOptions) -> Iterator[Check]:
    """Whether Wan's text encoder can be imported."""
    importlib.import_module("transformers.models.umt5.modeling_umt5")
    yield Check("transformers", OK, version("transformers"))


CHECKS: Checks = (torch_import, devices, autoencoder_library, text_encoder_library)
