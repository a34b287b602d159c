"""Promises of SECURITY.md that the sources of the packages can be searched for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
FETCHING = {"aiohttp", "ftplib", "http", "httpx", "huggingface_hub", "requests", "socket", "ssl", "urllib"}
UNPICKLING = {"_pickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
READING = ("from_pretrained", "from_config", "from_single_file", "load_config", "get_config_dict")
"""What transformers and diffusers call that reads a release or makes a class of what it says."""
LIBRARIES = ("transformers", "diffusers")
CHOOSING = re.compile(r"Auto[A-Z]\w*|DiffusionPipeline|pipeline")
"""What of theirs lets a file choose the class."""
TWO_PROCESSES = "packages/mm_data/src/mm_data/video/"
READS_METADATA = "packages/mm_models/src/mm_models/weights/torch_dcp.py"


def breaches(source: str) -> Iterator[str]:
    """What a file imports or calls against the promises."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"imports {alias.name}" for alias in node.names if forbidden(alias.name))
        if isinstance(node, ast.ImportFrom) and node.module and forbidden(node.module):
            yield f"imports {node.module}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
            yield from (f"imports {one.name}" for one in node.names if CHOOSING.fullmatch(one.name))
        if isinstance(node, ast.Call):
            yield from wrong_call(node)


def forbidden(module: str) -> bool:
    return module.split(".")[0] in FETCHING | UNPICKLING


def wrong_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "calls torch.load without weights_only=True"
    if name.rpartition(".")[2] in READING:
        for word, value in (("local_files_only", "True"), ("trust_remote_code", "False")):
            if given.get(word) != value:
                yield f"calls {name} without {word}={value}"
    elif given.get("trust_remote_code", "False") != "False":
        yield f"passes trust_remote_code to {name}"
    if name in ("eval", "exec"):
        yield f"calls {name}"


def test_no_package_imports_or_calls_what_the_promises_exclude() -> None:
    found = {str(path.relative_to(ROOT)): list(breaches(path.read_text("utf-8"))) for path in SOURCES}
    assert {path: ones for path, ones in found.items() if ones} == {
        READS_METADATA: ["imports pickle"],
        # A server listens where it is asked to, and reads the names of hosts that requests carry.
        "packages/mm_config/src/mm_config/pages/serving.py": ["imports socket", "imports urllib.parse"],
        # Addresses of pages are written.
        "packages/mm_train/src/mm_train/board/frame.py": ["imports urllib.parse"],
        "packages/mm_train/src/mm_train/board/listing.py": ["imports urllib.parse"],
        # Addresses are looked up, to refuse private ones; objects of allowed buckets are read by s3fs.
        "packages/mm_data/src/mm_data/remote.py": ["imports socket", "imports urllib.parse"],
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
        "T5Tokenizer.from_pretrained(place, trust_remote_code=False)",
        "T5Tokenizer.from_pretrained(place, local_files_only=True)",
        "table[name].from_pretrained(place, local_files_only=True, trust_remote_code=True)",
        "AutoencoderKLWan.from_config(stored)",
        "CLIPVisionConfig.get_config_dict(place)",
        "read(place, trust_remote_code=True)",
        "from transformers import AutoTokenizer",
        "from diffusers import DiffusionPipeline",
        "eval(text)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert list(breaches(source))
