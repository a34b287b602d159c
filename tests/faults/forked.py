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
import socket
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
        port = _free_port()
        children: list[int] = []
        for rank in range(request["ranks"]):
            children.append(os.fork())
            if children[-1] == 0:
                _child(request, rank, port)
        status = _wait(children, request)
        if "modules" in request and Path(request["modules"]).exists():  # Not after a signal.
            _import_too(Path(request["modules"]))
        print(json.dumps(status), flush=True)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _child(request: dict[str, Any], rank: int, port: int) -> None:
    """Runs one command, or a rank of it as torchrun starts it, and ends."""
    folder = Path(request["folder"])
    os.chdir(folder)
    os.environ["XDG_CACHE_HOME"] = str(folder / "user_cache")
    for descriptor, name in ((1, "stdout"), (2, "stderr"), (3, "calls")):
        file = os.open(f"{folder}.{name}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    arm = ctypes.CDLL(None).faults_arm
    arm(str(folder).encode(), *(request["fault"] if rank == request["faulty"] else (0, 0, 0)), 3)
    if request["ranks"] > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": request["ranks"], "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
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
            if "modules" in request and rank == 0:
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


def _wait(children: list[int], request: dict[str, Any]) -> dict[str, Any]:
    """How ranks ended; what takes longer than it may is killed. So is one that hangs, once the others have
    ended, as torchrun does.

    The status is that of the rank with the fault, unless another's is none that is promised where no rank
    is killed.
    """
    end = time.monotonic() + request["seconds"]
    statuses: dict[int, int] = {}
    late = False
    while len(statuses) < len(children):
        for rank, pid in enumerate(children):
            if rank not in statuses and (done := os.waitpid(pid, os.WNOHANG))[0]:
                statuses[rank] = os.waitstatus_to_exitcode(done[1])
        if request["hangs"] and {*statuses} == {*range(len(children))} - {request["faulty"]}:
            os.kill(children[request["faulty"]], signal.SIGKILL)
        if time.monotonic() > end:
            late, end = True, end + request["seconds"]
            for rank, pid in enumerate(children):
                if rank not in statuses:
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    status = statuses[request["faulty"]]
    others = [one for one in statuses.values() if one not in (0, 2)]
    return {"status": others[0] if status in (0, 2) and others else status, "late": late}


if __name__ == "__main__":
    serve()
