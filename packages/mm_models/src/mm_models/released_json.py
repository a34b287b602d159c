"""The JSON of releases, read for libraries: what could make them run or fetch something is refused first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mm_config.durable import require_regular
from mm_config.schema import Problem, UserError
from mm_config.stored import read_json

_REFUSED = frozenset(
    (
        "auto_map",
        "custom_generate",
        "custom_pipeline",
        "custom_pipelines",
        "custom_quantize",
        "fast_tokenizer_files",
        "gguf_file",
        "merges_file",
        "pretrained_model_name_or_path",
        "quantization_config",
        "tokenizer_file",
        "trust_remote_code",
        "vocab_file",
    )
)
_SHOWN = 120
_REFUSED_BEGINNINGS = (
    "_attn_implementation",
    "attn_implementation",
    "_experts_implementation",
    "experts_implementation",
    "hub_kernel",
    "use_kernel",
)
"""Keys of transformers and diffusers that name code, kernels, quantisers, other releases or files."""


def read_release_json(file: Path) -> dict[str, Any]:
    """A JSON object that came with weights, every value of which is data to the libraries.

    Raises:
        UserError: It can't be read, or holds keys that ask for code, downloads or quantisers; all of them
            are named.
    """
    content = read_json(file)
    if problems := [Problem(str(file), message) for message in _asking("", content)]:
        raise UserError(problems)
    return content


def require_harmless(folder: Path) -> None:
    """Looks through a folder that a library is about to read itself.

    Raises:
        UserError: A file is no regular file, or its JSON is what `read_release_json` refuses.
    """
    found = [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]
    for file in sorted(path for path in found if not path.is_dir()):
        if file.suffix == ".json":
            read_release_json(file)
            continue
        try:
            require_regular(file)
        except OSError as error:
            raise UserError(Problem(str(file), f"can't be read: {error.strerror}")) from error


def _asking(path: str, value: Any) -> Iterator[str]:
    """What asks for more than data."""
    if isinstance(value, dict):
        for key, inner in value.items():
            where = f"{path}.{key}" if path else key
            is_asking = key in _REFUSED or key.startswith(_REFUSED_BEGINNINGS)
            if is_asking and inner is not None and type(inner) is not int:  # Words of a vocabulary have ids.
                told = "which is never followed: it can make a library run, fetch or open something"
                yield f"holds {where[-_SHOWN:]}, {told}"
            else:
                yield from _asking(where, inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _asking(f"{path}.{index}", inner)
