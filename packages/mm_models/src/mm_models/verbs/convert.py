"""`mm convert`: weights of one codebase as those of another."""

from __future__ import annotations

import math
from pathlib import Path

from mm_config.cli import RUNS_DIR, CommandLine, Option, Usage, Verb
from mm_config.console import print_lines
from mm_config.schema import Problem, UserError
from mm_config.specs import Dtype
from mm_models.verbs.words import PART, SPEC, spec_of

NETWORKS, ADAPTERS = ("diffusers", "wan", "mindspeed", "dcp"), ("diffusers", "peft", "wan")
TO = Option("--to", "What to write (default: diffusers).", "KIND", (*NETWORKS, "peft"))


def _bytes_of_gb(text: str) -> int:
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not (math.isfinite(size) and size * 1e9 >= 1):
        raise UserError(f"expected a number of GB above 0, such as 5, got {text!r}")
    return int(size * 1e9)


SHARD = Option(
    "--shard-gb", "Largest file of safetensors in GB of 10^9 bytes (default: 10).", "N", read=_bytes_of_gb
)
DTYPE = Option(
    "--dtype", "Cast values (default: as they are stored).", "DTYPE", tuple(dtype.value for dtype in Dtype)
)


def _heads(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise UserError(f"expected a number of attention heads, such as 12, got {text!r}")
    return int(text)


HEADS = Option("--heads", "Attention heads of the network, where nothing tells them.", "N", read=_heads)
USAGE = Usage(
    "mm convert SRC DST [--to KIND] [--part PREFIX] [--shard-gb N] [--dtype DTYPE] [--heads N] "
    "[--spec TARGET] [--runs-dir DIR]",
    "Write weights as those of another codebase, bit for bit.",
    "Writes weights of Wan's transformer, text encoder or autoencoders as another kind, bit for bit. What "
    "SRC is, its content tells: a folder of diffusers or of the original Wan code, MindSpeed-MM's release or "
    "distributed checkpoint, our checkpoint, or one file (.safetensors, .pt, .pth, .bin). Files that would "
    "have to be executed are refused. 8-bit floats with scales are multiplied by them, and that is said.\n\n"
    "diffusers: config.json, safetensors and their index. wan: the same files under the original code's "
    "names. mindspeed: release/mp_rank_00/model_optim_rng.pt, which needs memory for the whole network. dcp: "
    "a checkpoint that trainings start from.\n\n"
    "A LoRA adapter in any key style (safetensors of diffusers, PEFT, kohya's tools or tools around the "
    "original code, or the checkpoint of a training) is written as diffusers, peft or wan, as it is stored; "
    "ComfyUI loads wan.\n\n"
    "DST must not exist; it is written beside its place and renamed when complete. Tensors that are missing, "
    "too many or of another shape are named and nothing is written. The number of attention heads is not in "
    "weights: where no config.json, no spec and no published network of these widths tells it, --heads must.",
    (TO, PART, SHARD, DTYPE, HEADS, SPEC, RUNS_DIR),
    (
        ("mm convert Wan2.1-T2V-1.3B wan-1.3b-diffusers", "the original release for diffusers"),
        ("mm convert RUN/checkpoints/step-00000450 trained", "what a training made, for diffusers"),
        ("mm convert wan-1.3b-diffusers mm-weights --to mindspeed --dtype bfloat16", "for MindSpeed-MM"),
        ("mm convert both.pt low --part low_noise", "one of the networks that a file holds"),
        ("mm convert lora.safetensors lora-peft --to peft", "an adapter for PEFT"),
        ("mm convert RUN/adapter my-lora --to wan", "adapters that a training made, for ComfyUI"),
    ),
    words=("SRC", "DST"),
    takes="files",
)


def convert_weights(line: CommandLine) -> int:
    """Writes SRC as another kind."""
    source, out = line.words
    spec = spec_of(line)

    from mm_models.dtypes import torch_dtype
    from mm_models.lora.files import holds_adapter
    from mm_models.weights.converting import SHARD_BYTES, convert
    from mm_models.weights.quantised import quantised_lines

    kind = line.value(TO, "diffusers")
    if holds_adapter(Path(source)):
        return _convert_adapter(line, Path(source), Path(out), kind)
    if kind not in NETWORKS:
        raise UserError(Problem(TO.flag, f"{kind} is for adapters, and {source} holds none"))
    dtype, heads = line.value(DTYPE), line.value(HEADS)
    if heads is not None and spec is not None:
        raise UserError(Problem(HEADS.flag, f"{line.value(SPEC)} of --spec tells it"))
    read = convert(
        Path(source),
        Path(out),
        kind,
        shard_bytes=line.value(SHARD, SHARD_BYTES),
        dtype=torch_dtype(Dtype(dtype)) if dtype else None,
        spec=spec,
        heads=heads,
        part=line.value(PART),
    )
    if read.left_out:
        more = ", ..." if len(read.left_out) > 3 else ""
        names = ", ".join(read.left_out[:3])
        print_lines([f"left out  {len(read.left_out)} entries that are no weights: {names}{more}"])
    for told in quantised_lines(read.tensors):
        print_lines([f"read      {told}"])
    print_lines([f"written   {out} ({kind}, from {read.kind})"])
    return 0


def _convert_adapter(line: CommandLine, source: Path, out: Path, kind: str) -> int:
    """Writes the adapters of a file in another key style."""
    from mm_models.lora.files import read_adapters
    from mm_models.lora.writing import save_adapters

    problems = [
        Problem(option.flag, "is for networks; an adapter is written as it is stored")
        for option in (PART, SHARD, DTYPE, HEADS, SPEC)
        if line.value(option) is not None
    ]
    if kind not in ADAPTERS:
        problems.append(Problem(TO.flag, f"expected {', '.join(ADAPTERS)} for an adapter, got {kind!r}"))
    if problems:
        raise UserError(problems)
    read = read_adapters(source)
    save_adapters(read.experts, out, kind)
    for folder in sorted(path for path in out.iterdir() if path.is_dir()) or [out]:
        print_lines([f"written   {folder} ({kind} adapter, from {read.style})"])
    return 0


VERB = Verb(USAGE, convert_weights)
