"""A store: the features that one encoder made, looked up by key.

A folder with shards, `made_with.json`, which says what made them, and `index.arrow`, which says in which
shard a key is. Shards are the truth: whoever is killed leaves whole ones, and those that the index does not
know yet are read by their heads. Several processes may write into a store at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mm_config.durable import remove_abandoned, staged_file, stages
from mm_config.schema import UserError
from mm_data.features.keys import digest_of
from mm_data.features.shards import SUFFIX, Damaged, Row, read_row, row_digests, write_shard, writing
from mm_data.index.table import read_table, write_table

INDEX, MADE_WITH = "index.arrow", "made_with.json"
_KEY = "S32"


class Store:
    """The features in a folder, as they were when it was opened and as they are written from here."""

    def __init__(self, folder: Path, made_with: Mapping[str, Any]) -> None:
        """Opens a store, which reads the index and the heads of shards that it does not know.

        Args:
            folder: It need not be there yet.
            made_with: The encoder, its weights and the numerics, as JSON.
        """
        self.folder = folder
        self.made_with = digest_of(dict(made_with))
        """What the keys of its features follow from."""
        self._told = json.dumps(dict(made_with), ensure_ascii=False, indent=1)
        self._keys, self._digests, self._shard_of, self._shards = _read_index(folder / INDEX)
        self._own: dict[str, tuple[str, str]] = {}
        """Shard and digest of what the index doesn't know."""
        for name in sorted(set(self._names()) - set(self._shards)):
            self._add(name)

    def __contains__(self, key: str) -> bool:
        return self._find(key) is not None

    def __iter__(self) -> Iterator[str]:
        """All keys, ascending."""
        indexed = (_whole(key).hex() for key in self._keys)
        return iter(sorted({*indexed, *self._own}) if self._own else indexed)

    def read(self, key: str) -> dict[str, Tensor]:
        """The tensors of a feature by name, mapped into memory.

        Raises:
            KeyError: There is none of this key.
            Damaged: It is not what was written, or its shard is gone.
        """
        if (found := self._find(key)) is None:
            raise KeyError(key)
        shard, digest = found
        return read_row(self.folder / shard, key, digest)

    def write(self, rows: Mapping[str, Row]) -> None:
        """Adds features by key, in a shard of their own.

        Raises:
            UserError: They can't be written.
        """
        if not (self.folder / MADE_WITH).exists():
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                with staged_file(self.folder / MADE_WITH) as staged:
                    staged.write_text(self._told, encoding="utf-8")
        self._add(write_shard(self.folder, rows))

    def shard_of(self, key: str) -> Path | None:
        """The shard of a feature."""
        found = self._find(key)
        return None if found is None else self.folder / found[0]

    def keys_beside(self, key: str) -> list[str]:
        """The keys of all features in a feature's shard, ascending."""
        if (found := self._find(key)) is None:
            return [key]
        shard = found[0]
        beside = {own for own, (name, _) in self._own.items() if name == shard}
        if shard in self._shards:
            places = np.flatnonzero(self._shard_of == self._shards.index(shard))
            beside |= {_whole(self._keys[place]).hex() for place in places} - self._own.keys()
        return sorted(beside)

    def seal(self) -> None:
        """Writes what is there into the index, and removes what killed writers left.

        Raises:
            UserError: It can't be written.
        """
        now = Store(self.folder, json.loads(self._told))
        now._own |= self._own
        there = set(now._names())
        found = [(key, shard, digest) for key, (shard, digest) in now._rows() if shard in there]
        with writing(self.folder):
            remove_abandoned(stages(self.folder))
            with staged_file(self.folder / INDEX) as staged:
                write_table(staged, _columns(found))

    @property
    def digest(self) -> str:
        """The 64 hex digits of its content: of sorted keys and digests, in whatever shards they lie."""
        digest = hashlib.sha256()
        for key, (_, of_row) in self._rows():
            digest.update(f"{key} {of_row}\n".encode())
        return digest.hexdigest()

    def _rows(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Key, shard and digest of all features, by ascending keys."""
        if self._own:
            yield from ((key, found) for key in self if (found := self._find(key)))
            return
        for key, place, of_row in zip(self._keys, self._shard_of.tolist(), self._digests, strict=True):
            yield _whole(key).hex(), (self._shards[place], _whole(of_row).hex())

    def _find(self, key: str) -> tuple[str, str] | None:
        if (own := self._own.get(key)) is not None:
            return own
        wanted = np.array(bytes.fromhex(key), _KEY)
        place = int(np.searchsorted(self._keys, wanted))
        if place == len(self._keys) or self._keys[place] != wanted:
            return None
        return self._shards[self._shard_of[place]], _whole(self._digests[place]).hex()

    def _names(self) -> list[str]:
        """Of the shards that are there."""
        return [path.name for path in self.folder.glob(f"[!.]*{SUFFIX}")]

    def _add(self, shard: str) -> None:
        try:
            listed = row_digests(self.folder / shard)
        except Damaged:
            return  # Its rows are made again.
        self._own |= {key: (shard, digest) for key, digest in listed.items()}


def _read_index(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Keys, ascending, digests and places of shards, each `[rows]`, and the shards; no row without an index.

    One that is damaged is as good as none, since shards tell the same.
    """
    try:
        batch = read_table(path)
        batch.validate(full=True)
        shard = batch.column("shard")
        names = [batch.column(name) for name in ("key", "digest")]
        keys, digests = (np.frombuffer(one.buffers()[1], _KEY, len(batch)) for one in names)
        # What is looked for by halves must be in order.
        wrong = any(str(one.type) != "fixed_size_binary[32]" or one.null_count for one in names)
        if wrong or shard.null_count or not np.all(keys[:-1] < keys[1:]):
            raise ValueError
        return keys, digests, shard.indices.to_numpy(), shard.dictionary.to_pylist()
    except (UserError, KeyError, ValueError, AttributeError):
        return np.empty(0, _KEY), np.empty(0, _KEY), np.empty(0, np.int32), []


def _columns(rows: list[tuple[str, str, str]]) -> dict[str, Any]:
    """The columns of an index of key, shard and digest."""
    import pyarrow as pa

    shards = sorted({shard for _, shard, _ in rows})
    place_of = {shard: place for place, shard in enumerate(shards)}
    places = pa.array([place_of[shard] for _, shard, _ in rows], pa.int32())
    return {
        "key": pa.array([bytes.fromhex(key) for key, _, _ in rows], pa.binary(32)),
        "digest": pa.array([bytes.fromhex(digest) for _, _, digest in rows], pa.binary(32)),
        "shard": pa.DictionaryArray.from_arrays(places, pa.array(shards, pa.string())),
    }


def _whole(digest: bytes) -> bytes:
    """All 32 bytes: numpy takes zeros at the end for filling."""
    return bytes(digest).ljust(32, b"\0")
