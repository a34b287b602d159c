"""Makes torch_npu's wheel and a stub of CANN's libraries ready, under build/npu_standin.

torch_npu asks for some eighty C functions of CANN. Which ones is read from the wheel itself: `cann_stub.c`
defines those with an outcome, a generated file lets every other return 0.

    python tests/npu_standin/build.py
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "npu_standin"
SPECIALS = HERE / "cann_stub.c"

LIBRARY = "ascendcl"
"""The library that holds every function."""

OTHERS = ("hccl", "acl_op_compiler", "ge_runner", "graph", "acl_tdt_channel")
"""Libraries that the wheel links beside it; empty, they depend on the first one, where dlsym goes on."""

BY_NAME = (
    "aclSetCompileopt",
    "aclrtCtxSetSysParamOpt",
    "aclrtSetDeviceSatMode",
    "aclrtSetOpExecuteTimeOut",
    "aclrtSetSysParamOpt",
    "aclrtSynchronizeDevice",
    "aclrtSynchronizeDeviceWithTimeout",
)
"""Functions that torch_npu looks up by name while it runs, which no symbol table of the wheel lists."""


class Unavailable(Exception):
    """Something that the stand-in needs is not on this machine; the message says what."""


def wheel_version() -> str:
    """The torch_npu that belongs to the installed torch."""
    return version("torch").partition("+")[0]


def wheel_folder() -> Path:
    """Where the wheel lies once it is installed, beside the environment and never in it."""
    return BUILD / f"torch_npu-{wheel_version()}"


def stub_folder() -> Path:
    """Where the libraries lie; another source or wheel makes others."""
    names = " ".join((wheel_version(), LIBRARY, *OTHERS, *BY_NAME))
    digest = hashlib.sha256(SPECIALS.read_bytes() + names.encode())
    return BUILD / f"cann-{digest.hexdigest()[:16]}"


def build() -> None:
    """Installs the wheel and compiles the stub, where they are missing.

    Raises:
        Unavailable: There is no compiler, no wheel for this machine, or a torch that it can't stand beside.
    """
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None or shutil.which("nm") is None:
        raise Unavailable("there is no C compiler with binutils here")
    if (_torch_folder() / "lib" / "libtorch_cuda.so").exists():
        raise Unavailable("torch is built for CUDA, and torch_npu can't be imported beside it")
    if not wheel_folder().exists():
        _install_wheel(wheel_folder())
    if not stub_folder().exists():
        _compile(compiler, stub_folder())


def missing() -> str | None:
    """What is not built yet, or None."""
    for what, folder in (("torch_npu's wheel", wheel_folder()), ("the stub of CANN", stub_folder())):
        if not folder.exists():
            return f"{what} is not at {folder.relative_to(ROOT)}"
    return None


def environment(environ: Mapping[str, str], devices: int = 2) -> dict[str, str]:
    """The environment in which `import torch` loads torch_npu over the stub, then the stand-in's kernels.

    An operator without an NPU kernel raises in it, instead of running on the CPU.
    """
    paths = [str(HERE / "site"), str(wheel_folder()), str(ROOT), environ.get("PYTHONPATH", "")]
    unset = ("ASCEND_HOME_PATH", "ASCEND_OPP_PATH", "TORCH_DEVICE_BACKEND_AUTOLOAD")
    return {
        **{name: value for name, value in environ.items() if name not in unset},
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "NPU_STANDIN_DEVICES": str(devices),
        "TORCH_NPU_FALLBACK_CPU_DISABLE": "1",
    }


def plain(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment of this process's children as if neither torch_npu nor the stand-in were there."""
    ours = ("PYTHONPATH", "NPU_STANDIN_DEVICES", "TORCH_NPU_FALLBACK_CPU_DISABLE")
    return {name: value for name, value in environ.items() if name not in ours}


def _install_wheel(folder: Path) -> None:
    staged = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:")
    wanted = f"torch_npu=={wheel_version()}"
    done = subprocess.run([*pip, "--target", str(staged), wanted], capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
        raise Unavailable(f"{wanted} can't be installed: {reason}")
    staged.rename(folder)


def _compile(compiler: str, folder: Path) -> None:
    """Six shared objects; the folder gets its name when all are there."""
    staged = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    flags = ["-std=gnu11", "-O1", "-fPIC", "-Wall", f"-I{wheel_folder() / 'torch_npu' / 'include'}"]
    _run([compiler, *flags, "-c", str(SPECIALS), "-o", str(staged / "specials.o")])
    defined = _symbols(["--defined-only", str(staged / "specials.o")])
    rest = sorted({*wanted_symbols(), *BY_NAME} - defined)
    lines = [
        "/* Generated by build.py: functions without an outcome. */",
        *map("int {}(void) {{ return 0; }}".format, rest),
    ]
    (staged / "rest.c").write_text("\n".join(lines) + "\n")
    _run([compiler, "-fPIC", "-c", str(staged / "rest.c"), "-o", str(staged / "rest.o")])
    objects = [str(staged / "specials.o"), str(staged / "rest.o")]
    _run(
        [
            compiler,
            "-shared",
            f"-Wl,-soname,lib{LIBRARY}.so",
            *objects,
            "-o",
            str(staged / f"lib{LIBRARY}.so"),
        ]
    )
    for name in OTHERS:
        link = ["-shared", "-Wl,--no-as-needed", f"-Wl,-soname,lib{name}.so", f"-L{staged}", f"-l{LIBRARY}"]
        _run([compiler, *link, "-o", str(staged / f"lib{name}.so")])
    staged.rename(folder)


def wanted_symbols() -> set[str]:
    """The C functions that the wheel needs and that neither torch, Python nor the system has."""
    package = wheel_folder() / "torch_npu"
    wheel = [package / "lib" / "libtorch_npu.so", package / "lib" / "libnpu_profiler.so"]
    wheel += [package / "lib" / "libtensorpipe.so", *package.glob("_C*.so")]
    torch_libraries = _torch_folder().joinpath("lib").glob("*.so*")
    python = Path(sys.executable).resolve()
    have = _dynamic(
        [*torch_libraries, python, *_linked(python), *_linked(wheel[0]), *wheel], "--defined-only"
    )
    return _dynamic(wheel, "--undefined-only") - have


def _torch_folder() -> Path:
    """Where torch is installed; it isn't imported for that."""
    spec = find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _linked(file: Path) -> list[Path]:
    """The libraries of the system that a file links and that are found."""
    words = _run(["ldd", str(file)]).split()
    return [Path(word) for word in words if word.startswith("/")]


def _dynamic(files: Iterable[Path], which: str) -> set[str]:
    return {name for file in files for name in _symbols(["-D", which, str(file)])}


def _symbols(arguments: list[str]) -> set[str]:
    """Names that nm lists, without their versions; a weak one need not be there."""
    rows = [line.split() for line in _run(["nm", *arguments]).splitlines()]
    return {row[-1].partition("@")[0] for row in rows if len(row) > 1 and row[-2] not in ("w", "v")}


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    try:
        build()
    except Unavailable as reason:
        print(f"The NPU stand-in can't be built: {reason}.")
