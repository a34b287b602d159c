"""Runs commands of mm in forks of one process that has imported everything, with a fault armed in each.

Started by `Commands` with the library of faults preloaded; speaks in lines of JSON on stdin and stdout.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any


def serve() -> None:
    """Forks a child for each request, and tells how it ended."""
    import tests.faults.specs  # noqa: F401
    from mm_config.cli.app import app  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            _child(request)
        status = _wait(pid, request["seconds"])
        if "modules" in request:
            _import_too(Path(request["modules"]))
        print(json.dumps(status), flush=True)


def _child(request: dict[str, Any]) -> None:
    """Runs one command and ends."""
    folder = Path(request["folder"])
    os.chdir(folder)
    os.environ["XDG_CACHE_HOME"] = str(folder / "user_cache")
    for descriptor, name in ((1, "stdout"), (2, "stderr"), (3, "calls")):
        file = os.open(f"{folder}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    arm = ctypes.CDLL(None).faults_arm
    arm(str(folder).encode(), *request["fault"], 3)
    status = 1
    try:
        sys.argv = request["argv"]
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            if "modules" in request:
                Path(request["modules"]).write_text("\n".join(sys.modules))
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _import_too(listed: Path) -> None:
    """Imports what a child imported, so that later ones needn't."""
    for name in listed.read_text("utf-8").split("\n"):
        if name not in sys.modules and name != "__mp_main__":
            with suppress(ImportError):
                importlib.import_module(name)


def _wait(pid: int, seconds: float) -> dict[str, Any]:
    """How a child ended; it is killed where it takes longer than it may."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return {"status": os.waitstatus_to_exitcode(status), "late": False}
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return {"status": -signal.SIGKILL, "late": True}
        time.sleep(0.002)


if __name__ == "__main__":
    serve()
