"""Which dialect of MindSpeed-MM a file is written in, and which of its files it is."""

from __future__ import annotations

from pathlib import Path

from mm_config.importing.mindspeed.table import TABLE
from mm_config.importing.nodes import Mapping, Node, Sequence
from mm_config.schema.errors import Problem, UserError

_INFERENCE = "inference_model.json"
_JSON = ("data.json", "tools.json", "model.json")
_YAML = ("fsdp2.yaml", "layerzero.yaml", "native.yaml")
_GENERATION = {"pipeline_class", "pipeline_config", "prompt", "boundary_ratio", "low_noise_predictor"}
"""Keys of an inference file that no training has."""
_GPT_ARGS = {"gpt_args", "lora_args", "MM_TOOL_PATH", "mm_tool_path"}
_ACCELERATE = {"compute_environment", "distributed_type", "num_processes", "fsdp_config", "deepspeed_config"}
_SCRIPTS = (".sh", ".bash")
_TEXTS = (".yaml", ".yml")


def is_script(file: Path) -> bool:
    """Whether a file is a launch script, by its name."""
    return file.suffix in _SCRIPTS


def is_yaml(file: Path) -> bool:
    """Whether a file is YAML, by its name."""
    return file.suffix in _TEXTS


def kind_of(file: Path, node: Node) -> str:
    """The kind of a JSON or YAML file, by its top-level keys.

    Raises:
        UserError: It is of a dialect that is not imported, which is named, or of none.
    """
    if isinstance(node.value, Sequence):
        raise UserError(
            Problem(
                f"{file}:{node.line}",
                "is a list, of clips perhaps: no configuration; write a manifest with `path` and `caption` "
                "per line",
            )
        )
    entries = node.value.entries if isinstance(node.value, Mapping) else ()
    keys = {key for key, _ in entries}
    if is_yaml(file):
        _refuse_other_dialects(file, node, keys)
    kinds = _YAML if is_yaml(file) else _JSON
    if keys & _GENERATION and not is_yaml(file):
        return _INFERENCE
    best = max(kinds, key=lambda kind: len(keys & TABLE.top_keys(kind)))
    if not keys & TABLE.top_keys(best):
        known = ", ".join(kinds if is_yaml(file) else (*kinds, _INFERENCE))
        raise UserError(
            Problem(
                f"{file}:{node.line}", f"has no key by which one of MindSpeed-MM's files is known ({known})"
            )
        )
    return best


def _refuse_other_dialects(file: Path, node: Node, keys: set[str]) -> None:
    for found, name in (
        (_GPT_ARGS, "the gpt_args dialect, which MindSpeed-MM flattens into flags for language models"),
        (_ACCELERATE, "an accelerate configuration, which MindSpeed-MM's diffusers examples use"),
    ):
        if keys & found:
            key = min(keys & found)
            raise UserError(Problem(f"{file}:{node.line}", f"{key}: is {name}; it is not imported"))
