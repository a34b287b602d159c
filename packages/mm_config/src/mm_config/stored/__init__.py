"""Specs as text: strict loading, files, source, layers, sentences about a spec."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.stored.files import dump, dumps, from_payload, load, load_with_requests, to_payload
    from mm_config.stored.json_files import read_json, write_json
    from mm_config.stored.parsing import parse_json
    from mm_config.stored.safetensors_files import COMMENT
    from mm_config.stored.source import to_source
    from mm_config.stored.structuring import all_aliases
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
