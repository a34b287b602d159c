"""Computes the hashes of every experiment under several Pythons and compares them with the golden ones.

    .venv/bin/python scripts/check_python_versions.py

Nothing is installed: each interpreter reads this repository's sources, and attrs and rfc8785 (both pure
Python) from the environment that runs the script. Interpreters are looked for on PATH and among pyenv's.
Exit status 0: all that were found agree; 1: one differs or fails, or none was found.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "mm_config" / "golden.txt"
VERSIONS = ("3.11", "3.12", "3.13")
LIBRARIES = ("attr", "attrs", "rfc8785")

HASHES_AS_JSON = """
import importlib, json, pkgutil, platform, experiments
from mm_config import exact_hash, spec_hash
specs = {one.name: importlib.import_module(f"experiments.{one.name}").SPEC
         for one in pkgutil.iter_modules(experiments.__path__)}
hashes = {name: [spec_hash(spec), exact_hash(spec)] for name, spec in specs.items()}
print(json.dumps({"python": platform.python_version(), "hashes": hashes}))
"""


def main() -> int:
    """Prints a line per version."""
    lines = [line.split() for line in GOLDEN.read_text().splitlines()]
    golden = {name: hashes for name, *hashes in lines}
    print(f"{GOLDEN.relative_to(ROOT)}: {len(golden)} experiments")
    agreed: list[bool] = []
    with tempfile.TemporaryDirectory() as folder:
        libraries = Path(folder)
        for name in LIBRARIES:
            found = importlib.util.find_spec(name)
            assert found is not None and found.submodule_search_locations
            (libraries / name).symlink_to(found.submodule_search_locations[0])
        for version in VERSIONS:
            interpreter = next(interpreters(version), None)
            if interpreter is None:
                print(f"{version}: not found")
                continue
            agreed.append(agrees(version, interpreter, libraries, golden))
    return 0 if agreed and all(agreed) else 1


def interpreters(version: str) -> Iterator[str]:
    """Pythons of a version that start, PATH first; a pyenv shim for an absent version does not."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [f"python{version}", *map(str, sorted(pyenv.glob(f"{version}.*/bin/python{version}")))]
    for candidate in candidates:
        try:
            subprocess.run([candidate, "--version"], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        yield candidate


def agrees(version: str, interpreter: str, libraries: Path, golden: dict[str, list[str]]) -> bool:
    """Prints how the hashes under an interpreter compare with the golden ones."""
    path = os.pathsep.join(map(str, (ROOT / "packages" / "mm_config" / "src", ROOT, libraries)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [interpreter, "-s", "-c", HASHES_AS_JSON]
    result = subprocess.run(
        command, env=environment, cwd=libraries, capture_output=True, text=True, check=False
    )
    if result.returncode:
        print(f"{version}: failed: {result.stderr.strip().splitlines()[-1]}")
        return False
    answer = json.loads(result.stdout)
    names = sorted(golden.keys() | answer["hashes"].keys())
    different = [name for name in names if golden.get(name) != answer["hashes"].get(name)]
    outcome = f"differs in {', '.join(different)}" if different else "the same hashes"
    print(f"{version}: {answer['python']}: {outcome}")
    return not different


if __name__ == "__main__":
    sys.exit(main())
