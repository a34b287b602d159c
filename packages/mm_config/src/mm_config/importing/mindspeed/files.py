"""What the files of one run say, by key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import attrs

from mm_config.importing.facts import TEXT_KINDS, Fact, generic, typed
from mm_config.importing.mindspeed.keys import (
    ADAPTERS,
    DATA,
    FLAG,
    IMAGE_BRANCH,
    INFERENCE,
    MODEL,
    NATIVE,
    PRE,
    TOOLS,
)
from mm_config.importing.rows import Row
from mm_config.importing.verdict import Verdict
from mm_config.schema.fields import ABSENT
from mm_config.schema.suggestions import nearest
from mm_config.specs.diffusion import Expert
from mm_config.specs.family import Family

_BASES = {"model": MODEL, "data": DATA, "tools": TOOLS}


@attrs.frozen(slots=False, eq=False)
class Table:
    """What becomes of each key, flag and variable."""

    rows: tuple[Row, ...]
    """One for each kind of file and path."""

    @cached_property
    def _by_key(self) -> dict[tuple[str, str], Row]:
        return {(row.kind, row.path): row for row in self.rows}

    def row_of(self, kind: str, path: str) -> Row | None:
        """The row of a key, its path with `[]` for each list element; None where there is none.

        In a native YAML file the sections `model`, `data` and `tools` hold the keys of the JSON files.
        """
        found = self._by_key.get((kind, path))
        if found is None and kind == NATIVE:
            section, _, below = path.partition(".")
            return self._by_key.get((_BASES.get(section, ""), below))
        return found

    def top_keys(self, kind: str) -> frozenset[str]:
        """The keys at the root of a kind of file."""
        return frozenset(row.path.partition(".")[0] for row in self.rows if row.kind == kind)

    def nearest_key(self, kind: str, path: str) -> str | None:
        """The known key that a misspelt one was probably meant to be."""
        known = [row.path for row in self.rows if row.kind == kind and row.verdict is not Verdict.MISSPELT]
        parent = path.rpartition(".")[0]
        siblings = [key for key in known if key.rpartition(".")[0] == parent]
        return next(iter(nearest(path, siblings) or nearest(path, known)), None)


@attrs.frozen(slots=False, eq=False)
class Files:
    """The facts of one run; nothing of it ever changes."""

    table: Table
    """What becomes of each."""
    facts: tuple[Fact, ...]
    """All that the files give."""
    generation: bool
    """Whether an inference spec is made; else a training spec."""
    reached: Mapping[str, tuple[str, ...]] = {}
    """The flags that a script's variable reaches, by its name."""
    prompts: Mapping[str, tuple[str, ...]] = {}
    """Lines of the prompts files, by name."""

    @property
    def kind(self) -> str:
        """The kind of the file that tells the network."""
        return INFERENCE if self.generation else MODEL

    @cached_property
    def rows(self) -> dict[Fact, Row]:
        """The row of each fact that has one."""
        found = ((fact, self.table.row_of(fact.source.kind, generic(fact.path))) for fact in self.facts)
        return {fact: row for fact, row in found if row is not None}

    @cached_property
    def _last(self) -> dict[tuple[str, str], Fact]:
        return {(row.kind, row.path): fact for fact, row in self.rows.items()}

    def fact(self, kind: str, path: str) -> Fact | None:
        """The last fact of a key."""
        return self._last.get((kind, path))

    def all_of(self, kind: str, path: str) -> list[Fact]:
        """All facts of a key with `[]`."""
        return [fact for fact, row in self.rows.items() if (row.kind, row.path) == (kind, path)]

    def has(self, kind: str, start: str = "") -> bool:
        """Whether any fact of this kind has a path that starts so."""
        return any(key[0] == kind and key[1].startswith(start) for key in self._last)

    def raw(self, kind: str, path: str, default: Any = None) -> Any:
        """What a file says of a key, numbers of scripts as numbers; `default` where the key is missing."""
        fact = self.fact(kind, path)
        return default if fact is None else typed(fact)

    def get(self, kind: str, path: str, otherwise: Any = None) -> Any:
        """The value of a key in our terms: the file's, MindSpeed-MM's default, or `otherwise`.

        A default holds only where another key of the same group is given. A value that can't be read is
        reported by its row, and counts as missing here.
        """
        row = self.table.row_of(kind, path)
        if row is None or row.read is None:
            return self.raw(kind, path, otherwise)
        fact = self.fact(kind, path)
        value = typed(fact) if fact is not None else row.default if self.is_grouped(row) else ABSENT
        try:
            return otherwise if value is ABSENT else row.read(value)
        except ValueError:
            return otherwise

    def is_grouped(self, row: Row) -> bool:
        """Whether another key of a row's group is given, so that its default holds."""
        if row.kind in TEXT_KINDS:
            return self.has(row.kind)
        parent = row.path.rpartition(".")[0]
        return any(kind == row.kind and path.rpartition(".")[0] == parent for kind, path in self._last)

    def holds(self, condition: str) -> bool:
        """Whether a condition of the table holds."""
        return _CONDITIONS[condition](self)

    @property
    def world_size(self) -> int | None:
        """Ranks that the script starts; None without a script."""
        local, nodes = self.raw(FLAG, "--nproc_per_node"), self.raw(FLAG, "--nnodes", 1)
        if not isinstance(local, int) or not isinstance(nodes, int) or local < 1 or nodes < 1:
            return None
        return local * nodes if local * nodes < 2**31 else None


@attrs.frozen
class Known:
    """What the files' network is."""

    name: str
    """The family's name, such as `wan22.T2V_A14B`; empty where no family has the network."""
    family: Family
    """The family, the file's own network put in."""
    expert: Expert
    """What a training file is for."""


def is_count(value: object, least: int = 1) -> bool:
    """Whether a value is a whole number that is at least so large, and below 2**31."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31


def _raw_clips(files: Files) -> bool:
    return not _reads_features(files) and files.raw(MODEL, "load_video_features") is not True


def _reads_features(files: Files) -> bool:
    return files.raw(DATA, "dataset_param.dataset_type") == "feature"


def _shorter(files: Files) -> bool:
    share = files.get(DATA, f"{PRE}.drop_short_ratio", 1.0)
    return isinstance(share, float) and share < 1


_CONDITIONS: dict[str, Callable[[Files], bool]] = {
    "cp": lambda files: is_count(files.raw(FLAG, "--context-parallel-size", 1), 2),
    "custom": lambda files: files.raw(files.kind, "predictor.model_id") == "custom_dit",
    "decay": lambda files: files.has(FLAG) and files.raw(FLAG, "--lr-decay-style", "linear") != "constant",
    "dynamic": lambda files: files.raw(DATA, f"{PRE}.force_resolution", True) is False,
    "ema": lambda files: files.raw(FLAG, "--optimizer-selection") == "fused_ema_adamw",
    "experts": lambda files: files.raw(files.kind, "boundary_ratio") is not None,
    "fsdp2": lambda files: not files.has(FLAG) or files.fact(FLAG, "--use-torch-fsdp2") is not None,
    "image_branch": lambda files: files.raw(files.kind, "predictor.model_type") in IMAGE_BRANCH,
    "interval": lambda files: files.raw(DATA, f"{PRE}.auto_interval", True) is not True,
    "layerzero": lambda files: not files.has(FLAG) or files.fact(FLAG, "--layerzero") is not None,
    "lora": lambda files: (
        any(files.fact(FLAG, flag) for flag in ADAPTERS) or files.raw(NATIVE, "training.lora.enable") is True
    ),
    "memory": lambda files: files.raw(TOOLS, "memory_profile.enable") is True,
    "muon": lambda files: files.raw(FLAG, "--optimizer") == "muon",
    "native_decay": lambda files: files.raw(NATIVE, "training.lr_decay_style", "constant") != "constant",
    "native_recompute": lambda files: files.raw(NATIVE, "features.recompute") is True,
    "native_warmup": lambda files: (files.raw(NATIVE, "training.lr_warmup_ratio") or 0) != 0,
    "profile": lambda files: files.raw(TOOLS, "profile.enable") is True,
    "rate": lambda files: files.raw(DATA, f"{PRE}.auto_interval", True) is True,
    "raw": _raw_clips,
    "recompute": lambda files: files.fact(FLAG, "--recompute-granularity") is not None,
    "short": _shorter,
    "text": lambda files: not _reads_features(files) and files.raw(MODEL, "load_text_features") is not True,
    "tiling": lambda files: files.raw(files.kind, "ae.enable_tiling") is True,
    "video": lambda files: files.fact(files.kind, "video") is not None,
    "warmup": lambda files: is_count(files.get(FLAG, "--lr-warmup-iters", 0)),
}

WHY_NOT = {
    "cp": "there is no context parallelism",
    "custom": "Wan's own class swallows it; only the developer guide's `custom_dit` reads it",
    "decay": "the learning rate never falls",
    "dynamic": "force_resolution is true: clips have one size",
    "ema": "only --optimizer-selection fused_ema_adamw reads it",
    "experts": "there is no boundary_ratio, so one network works at all noise levels",
    "fsdp2": "the script lacks --use-torch-fsdp2, so nothing reads this file",
    "image_branch": "the network has no image branch",
    "interval": "auto_interval is true: frames are taken by train_fps",
    "layerzero": "the script lacks --layerzero, so nothing reads this file",
    "lora": "no adapters are trained",
    "memory": "memory_profile.enable is false",
    "muon": "only --optimizer muon reads it",
    "native_decay": "the learning rate never falls",
    "native_recompute": "features.recompute is false",
    "native_warmup": "there is no warm-up",
    "profile": "profile.enable is false",
    "rate": "auto_interval is false: every frame_interval-th frame is taken",
    "raw": "features are read instead of clips",
    "recompute": "--recompute-granularity is missing",
    "short": "drop_short_ratio is 1: all shorter clips are left out",
    "text": "text features are read instead of captions",
    "tiling": "ae.enable_tiling is false",
    "video": "of video to video; without `video` nothing reads it",
    "warmup": "there is no warm-up",
}
"""Why a key is dead whose condition does not hold."""
