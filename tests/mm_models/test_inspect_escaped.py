"""What weights of strangers say of themselves is printed with control characters escaped."""

import json
from pathlib import Path

import pytest

from mm_config.cli.app import app
from tests.mm_config.test_control_characters import HOSTILE, reached_safely


def test_weights_of_strangers_are_told_escaped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def file(name: str, dtype: str) -> str:
        entry = {"dtype": dtype, "shape": [1], "data_offsets": [0, 4]}
        header = json.dumps({"__metadata__": {HOSTILE: HOSTILE}, HOSTILE: entry}).encode()
        (tmp_path / name).write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        return str(tmp_path / name)

    for path in (file("names.safetensors", "F32"), file("dtypes.safetensors", HOSTILE)):
        for words in ([], ["--json"]):
            app(["inspect", path, *words])
            printed = capfd.readouterr()
            reached_safely(printed.out)
            reached_safely(printed.err)
