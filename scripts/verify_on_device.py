"""Computes on a device what the tests compute on the CPU, compares, times, and writes one JSON file.

    .venv/bin/python scripts/verify_on_device.py --device npu --out verified.json
    .venv/bin/python scripts/verify_on_device.py --device npu --out verified.json --only attention transformer

It is for whoever has a card; it runs on a CPU as well. Nothing is downloaded. Exit status 0: everything that
could run agrees with the CPU; 1: something differs or fails; 2: a mistake, or no such device.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
# Read once, when torch_npu is imported: an operator that fell back to the CPU would agree with it.
os.environ.setdefault("TORCH_NPU_FALLBACK_CPU_DISABLE", "1")

from mm_config.cli.exits import exit_status  # noqa: E402
from mm_config.npu.variables import RECORDED  # noqa: E402
from mm_config.npu.versions import cann_folder, cann_version  # noqa: E402
from mm_config.runs.provenance import utc_now  # noqa: E402
from mm_config.schema.errors import Problem, UserError  # noqa: E402

if TYPE_CHECKING:
    import torch

    from tests.on_device.comparing import DeviceCheck, Outputs

PACKAGES = ("torch", "torch_npu", "triton-ascend", "diffusers", "transformers", "mm-models")


def main() -> int:
    """Runs the checks and prints a line for each."""
    return exit_status(lambda: _verified(_options()))


def _verified(options: argparse.Namespace) -> int:
    if options.out.exists():
        raise UserError(Problem("--out", f"{options.out} exists already; choose another name"))
    from mm_models import device
    from tests.on_device.checks import CHECKS

    wanted = [check for check in CHECKS if not options.only or check.name.startswith(tuple(options.only))]
    if not wanted:
        names = ", ".join(check.name for check in CHECKS)
        raise UserError(Problem("--only", f"no check starts so; there are {names}"))
    place = device.pick(options.device, "--device")
    report = described(place)
    report["checks"] = []
    for check in wanted:
        found = result_of(check, place)
        report["checks"].append(found)
        print(_line(found), flush=True)
    report["passed"] = all(found["status"] != "failed" for found in report["checks"])
    report["ended_at"] = utc_now()
    options.out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    print(options.out.absolute())
    return 0 if report["passed"] else 1


def described(device: torch.device) -> dict[str, Any]:
    """Device, versions and environment."""
    import torch

    cann = cann_folder(os.environ)
    module = torch.get_device_module(device)
    count = 1 if device.type == "cpu" else torch.accelerator.device_count()
    name_of = getattr(module, "get_device_name", lambda index: platform.processor() or platform.machine())
    return {
        "started_at": utc_now(),
        "device": {"type": device.type, "names": [name_of(index) for index in range(count)]},
        "versions": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cann": cann_version(cann) if cann is not None else None,
            **{package: _version_of(package) for package in PACKAGES},
        },
        "environment": {name: os.environ[name] for name in RECORDED if name in os.environ},
    }


def result_of(check: DeviceCheck, device: torch.device) -> dict[str, Any]:
    """What came of a check, as a JSON object; times include whatever the device compiles."""
    import torch

    from tests.on_device.comparing import CPU, Place, worst

    found: dict[str, Any] = {"name": check.name, "about": check.about, "tolerance": check.tolerance}
    devices = check.ranks if device.type == "cpu" else torch.accelerator.device_count()
    if devices < check.ranks:
        return {**found, "status": "skipped", "reason": f"needs {check.ranks} devices, has {devices}"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            cpu, actual = Path(folder) / "cpu", Path(folder) / "device"
            cpu.mkdir()
            actual.mkdir()
            expected, found["cpu_seconds"] = _timed(check, Place(CPU, cpu, expected=True))
            outputs, found["device_seconds"] = _timed(check, Place(device, actual))
            error, where = worst(outputs, expected)
        except Exception as failure:
            lines = traceback.format_exception_only(failure)
            return {
                **found,
                "status": "failed",
                "reason": "".join(lines).strip(),
                "trace": traceback.format_exc(),
            }
    # JSON has no infinity.
    found |= {"worst_error": error if math.isfinite(error) else None, "worst_in": where}
    return {**found, "status": "passed" if error <= check.tolerance else "failed"}


def _timed(check: DeviceCheck, place: Any) -> tuple[Outputs, float]:
    """What a check computes, copied to the CPU, which waits for the device, and the seconds that took."""
    began = time.perf_counter()
    outputs: Mapping[str, torch.Tensor] = check.compute(place)
    copied = {name: one.cpu() for name, one in outputs.items()}
    return copied, time.perf_counter() - began


def _line(found: dict[str, Any]) -> str:
    if "reason" in found:
        return f"{found['status']:8}{found['name']}: {found['reason'].splitlines()[0]}"
    error = (
        "not finite, or of another shape" if found["worst_error"] is None else f"{found['worst_error']:.1e}"
    )
    return (
        f"{found['status']:8}{found['name']}: {error} of the largest value, {found['tolerance']:.0e} allowed "
        f"({found['worst_in']}); CPU {found['cpu_seconds']:.2f} s, device {found['device_seconds']:.2f} s"
    )


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "npu"), default="auto")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="checks whose names start so (default: all)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
