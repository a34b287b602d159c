"""Runs the tests of this folder with torch_npu over the stand-in; `make test-npu` calls it.

python tests/npu_standin/run.py [files or options of pytest]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.npu_standin import build  # noqa: E402


def main() -> None:
    """Builds what is missing and becomes pytest; without a compiler or wheel its tests are skipped."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    environment = dict(os.environ)
    try:
        build.build()
        environment = build.environment(os.environ)
    except build.Unavailable as reason:
        environment["NPU_STANDIN_UNAVAILABLE"] = str(reason)
    folder = Path(__file__).parent.relative_to(ROOT)
    command = [sys.executable, "-m", "pytest", "-m", "npu", "-o", f"testpaths={folder}", *sys.argv[1:]]
    os.chdir(ROOT)
    os.execve(sys.executable, command, environment)


if __name__ == "__main__":
    main()
