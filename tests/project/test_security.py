"""Promises of SECURITY.md that the sources of the packages can be searched for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
FETCHING = {"aiohttp", "ftplib", "http", "httpx", "huggingface_hub", "requests", "socket", "ssl", "urllib"}
UNPICKLING = {"_pickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
TWO_PROCESSES = "packages/mm_data/src/mm_data/video/"
READS_METADATA = "packages/mm_models/src/mm_models/weights/torch_dcp.py"


def breaches(source: str) -> Iterator[str]:
    """What a file imports or calls against the promises."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"imports {alias.name}" for alias in node.names if forbidden(alias.name))
        if isinstance(node, ast.ImportFrom) and node.module and forbidden(node.module):
            yield f"imports {node.module}"
        if isinstance(node, ast.Call):
            yield from wrong_call(node)


def forbidden(module: str) -> bool:
    return module.split(".")[0] in FETCHING | UNPICKLING


def wrong_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "calls torch.load without weights_only=True"
    if name.endswith("from_pretrained") and given.get("local_files_only") != "True":
        yield f"calls {name} without local_files_only=True"
    if "trust_remote_code" in given:
        yield f"passes trust_remote_code to {name}"
    if name in ("eval", "exec"):
        yield f"calls {name}"


def test_no_package_imports_or_calls_what_the_promises_exclude() -> None:
    found = {str(path.relative_to(ROOT)): list(breaches(path.read_text("utf-8"))) for path in SOURCES}
    assert {path: ones for path, ones in found.items() if ones} == {
        READS_METADATA: ["imports pickle"],
        # A pair of sockets without an address, between two processes of one machine.
        f"{TWO_PROCESSES}isolated.py": ["imports socket"],
        f"{TWO_PROCESSES}worker.py": ["imports socket"],
    }


@pytest.mark.parametrize(
    "source",
    [
        "import urllib.request",
        "from huggingface_hub import snapshot_download",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "AutoTokenizer.from_pretrained(place)",
        "AutoModel.from_pretrained(place, local_files_only=True, trust_remote_code=True)",
        "eval(text)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert list(breaches(source))
