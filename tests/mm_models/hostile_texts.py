"""What makes a text of `hostile_release` hostile: its kind, size and depth, its keys, its numbers."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs

Damage = Callable[[Path], None]


@attrs.frozen
class Case:
    """One hostile file."""

    name: str
    """What is wrong, and where."""
    door: str
    """What opens it, of `hostile_release.DOORS`."""
    damage: Damage
    """Makes it of the honest folder, a copy of which it is given; `..` is where the canary lies."""


TEXTS = (
    ("text", "text_encoder/config.json"),
    ("text", "tokenizer/tokenizer_config.json"),
    ("text", "tokenizer/tokenizer.json"),
    ("autoencoder", "vae/config.json"),
    ("image", "image_encoder/config.json"),
    ("sharded", "sharded/w.safetensors.index.json"),
    ("checkpoint", "checkpoint/state.json"),
    ("adapter", "adapter/adapter_config.json"),
    ("json", "spec.json"),
    ("yaml", "spec.yaml"),
    ("run", "run/spec.json"),
    ("manifest", "clips.jsonl"),
    ("locations", "locations.yaml"),
)
"""Files that are read as text, by the door that reads them."""
CONFIGURATIONS = TEXTS[:2] + TEXTS[3:5]
ASKING: tuple[dict[str, Any], ...] = (
    {"auto_map": {"AutoTokenizer": ["evil.Evil", None], "AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}},
    {"auto_map": ["evil--repo--evil.Evil", None]},
    {"nested": [{"auto_map": {"AutoModel": "evil/repo--evil.Evil"}}]},
    {"_attn_implementation": "evil/kernel"},
    {"_attn_implementation_internal": "evil/kernel:evil"},
    {"attn_implementation": {"": "evil/kernel"}},
    {"_experts_implementation": "evil/kernel"},
    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    {"trust_remote_code": True},
    {"custom_pipeline": "evil/repo"},
    {"fast_tokenizer_files": ["../../tokenizer.1.0.json"]},
    {"gguf_file": "../../canary.json"},
)
"""Keys that make a library run, fetch or open something."""
NUMBERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("text", "text_encoder/config.json", {"relative_attention_num_buckets": 10**9}),
    ("text", "text_encoder/config.json", {"vocab_size": 10**12}),
    ("text", "text_encoder/config.json", {"num_layers": 10**9}),
    ("text", "text_encoder/config.json", {"d_kv": -1}),
    ("text", "text_encoder/config.json", {"layer_norm_epsilon": "x" * 10**6}),
    ("text", "tokenizer/tokenizer_config.json", {"tokenizer_class": "EvilTokenizer"}),
    ("text", "tokenizer/tokenizer_config.json", {"tokenizer_class": ["PreTrainedTokenizerFast"]}),
    ("text", "tokenizer/tokenizer_config.json", {"padding_side": "../canary.json"}),
    ("text", "tokenizer/tokenizer_config.json", {"added_tokens_decoder": {"x": 1}}),
    ("text", "tokenizer/tokenizer.json", {"model": {"auto_map": "evil--repo--evil.Evil"}}),
    ("text", "tokenizer/tokenizer.json", {"model": {"type": "Unigram", "vocab": 10**9}}),
    ("autoencoder", "vae/config.json", {"base_dim": 10**9}),
    ("autoencoder", "vae/config.json", {"latents_mean": 10**9}),
    ("autoencoder", "vae/config.json", {"latents_std": [None] * 4}),
    ("autoencoder", "vae/config.json", {"dim_mult": "x"}),
    ("autoencoder", "vae/config.json", {"attn_scales": [1.0]}),
    ("image", "image_encoder/config.json", {"hidden_size": 10**12}),
    ("image", "image_encoder/config.json", {"num_hidden_layers": 10**9}),
    ("image", "image_encoder/config.json", {"image_size": [10**9, 10**9]}),
    ("image", "image_encoder/config.json", {"hidden_act": "evil"}),
    ("image", "image_encoder/config.json", {"layer_norm_eps": [1]}),
    ("adapter", "adapter/adapter_config.json", {"r": 10**12}),
    ("adapter", "adapter/adapter_config.json", {"lora_alpha": 10**400}),
    ("adapter", "adapter/adapter_config.json", {"rank_pattern": {"(a|aa|.)*(b|.)*(.*.*)*x": 4}}),
    ("adapter", "adapter/adapter_config.json", {"rank_pattern": {"(": 4}}),
    ("adapter", "adapter/adapter_config.json", {"auto_map": {"AutoModel": "evil.Evil"}}),
    ("sharded", "sharded/w.safetensors.index.json", {"weight_map": {"a": "../canary.json"}}),
    ("sharded", "sharded/w.safetensors.index.json", {"weight_map": {"a": ["part-0.safetensors"]}}),
    ("sharded", "sharded/w.safetensors.index.json", {"weight_map": 10**9}),
    ("sharded", "sharded/w.safetensors.index.json", {"weight_map": {f"{n}": f"{n}" for n in range(10**6)}}),
    ("checkpoint", "checkpoint/manifest.json", {"files": {"../canary.json": {"bytes": 24, "sha256": ""}}}),
    ("checkpoint", "checkpoint/manifest.json", {"files": {"state.json": {"bytes": 10**400, "sha256": 1}}}),
    ("checkpoint", "checkpoint/manifest.json", {"files": [[]]}),
    ("json", "spec.json", {"kind": "x" * 2**22}),
    ("json", "spec.json", {"kind": "experiments.tiny_high"}),
    ("run", "run/spec.json", {"v": 10**400}),
    ("run", "run/status.json", {"status": ["finished"]}),
    ("run", "run/status.json", {"started": 10**400}),
)
"""Values that are no such values, too large, or lead elsewhere."""
YAML = (
    "!!python/object/apply:os.mkdir [{marker}]",
    "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "a: 0x" + "f" * 10**6,
    "? [a, b]\n: c",
    "%TAG ! tag:evil,2000:\n---\n!x 1",
)


def text_cases() -> Iterator[Case]:
    """Every damage of every text."""
    for door, file in TEXTS:
        for damage in (_pipe, _socket, _device, _folder, _loop, _deep, _digits, _latin, _sparse, _zeros):
            yield Case(f"{damage.__name__[1:]} {file}", door, partial(_at, file, damage))
    for door, file in CONFIGURATIONS:
        for index, keys in enumerate(ASKING):
            yield Case(f"asking {index} {file}", door, partial(_asking, file, keys))
    for door, file, keys in NUMBERS:
        yield Case(f"{next(iter(keys))} {str(keys)[:60]} {file}", door, partial(_merge, file, keys))
    yield Case("no words", "text", _no_words)
    yield Case("pipe chat template", "text", partial(_at_new, "tokenizer/chat_template.jinja"))
    yield Case("pipe template", "text", partial(_at_new, "tokenizer/additional_chat_templates/a.jinja"))
    for index, text in enumerate(YAML):
        for door, file in (("yaml", "spec.yaml"), ("locations", "locations.yaml")):
            yield Case(f"yaml {index} {file}", door, partial(_text, file, text))


def _at(file: str, damage: Damage, folder: Path) -> None:
    (folder / file).unlink()
    damage(folder / file)


def _at_new(file: str, folder: Path) -> None:
    (folder / file).parent.mkdir(exist_ok=True)
    os.mkfifo(folder / file)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # A socket's path has 108 bytes.
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _deep(path: Path) -> None:
    path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)


def _digits(path: Path) -> None:
    path.write_text('{"a": ' + "1" * 100_000 + "}")


def _latin(path: Path) -> None:
    path.write_bytes(b'{"a": "\xff\xfe"}')


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**36)


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(4096))


def _asking(file: str, keys: dict[str, Any], folder: Path) -> None:
    marker = folder.parent / "marker"
    code = f"import os\nos.mkdir({str(marker)!r})\nclass Evil: ...\n"
    ((folder / file).parent / "evil.py").write_text(code)
    _merge(file, keys, folder)


def _merge(file: str, keys: dict[str, Any], folder: Path) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def _no_words(folder: Path) -> None:
    """A tokenizer without its vocabulary, but with the class that then makes an empty one."""
    (folder / "tokenizer/tokenizer.json").unlink()
    _merge("tokenizer/tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"}, folder)


def _text(file: str, text: str, folder: Path) -> None:
    (folder / file).write_text(text.replace("{marker}", str(folder.parent / "marker")))
