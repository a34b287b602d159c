"""Features looked up by the clip and the caption that a batch asks for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from threading import Lock

from torch import Tensor

from mm_config.console import aside
from mm_config.schema import Problem, UserError
from mm_data import Asked, Bad, BadClip, Damaged, Store
from mm_models import latents_of
from mm_train.features.encoding import Encoders, Row, loaded, padded
from mm_train.features.kinds import CONDITION, IMAGE, LATENTS, TEXT
from mm_train.features.making import Asks, Names, captions_of

_CAPTIONS_IN_MEMORY = 256


class Features:
    """What is kept of a dataset's clips and captions."""

    def __init__(
        self,
        names: Names,
        stores: Mapping[str, Store],
        bad: Mapping[int, Bad],
        *,
        sample: bool,
        max_tokens: int,
        remake: Remake | None = None,
    ) -> None:
        """Opens nothing.

        Args:
            names: What features are called.
            stores: Where they lie, by kind.
            bad: Clips that have none, by place in the dataset.
            sample: Whether latents are a sample of what is kept.
            max_tokens: Of a text feature.
            remake: Makes what is damaged; without it damage is an error.
        """
        self.kinds = frozenset(stores)
        """What is looked up; all else is encoded."""
        self.bad = tuple(bad.values())
        """Clips that can't be read."""
        self._names, self._stores, self._bad = names, stores, bad
        self._sample, self._max_tokens, self._remake = sample, max_tokens, remake
        self._making = Lock()
        self.text_of = lru_cache(_CAPTIONS_IN_MEMORY)(self._text_of)
        """`[L, D]` float32 of a caption of the dataset, or of the empty one."""

    def kept(self, asked: Asked) -> Asked:
        """The variant of a clip that is kept for what is asked."""
        return self._names.kept(asked)

    def latents_of(self, kept: Asked) -> Tensor:
        """`[C, T, H, W]` float32 of a variant.

        Raises:
            BadClip: It could not be read when features were made.
            UserError: They are damaged and can't be made again.
        """
        if (lost := self._bad.get(kept.index)) is not None:
            raise BadClip(lost.stage, lost.reason)
        row = self._row(LATENTS, self._names.of_clip(LATENTS, kept))
        return latents_of(row, sample=self._sample)

    def given_of(self, kept: Asked) -> tuple[Tensor | None, Tensor | None]:
        """What a variant's given frames were encoded to, float32: latents `[C, T, H, W]`, `T` being 1 where
        they are a clean first frame, and features `[I, K]`; None where the network takes none.

        Raises:
            UserError: They are damaged and can't be made again.
        """
        return self._of_clip(CONDITION, "latents", kept), self._of_clip(IMAGE, "features", kept)

    def _of_clip(self, kind: str, name: str, kept: Asked) -> Tensor | None:
        if kind not in self.kinds:
            return None
        return self._row(kind, self._names.of_clip(kind, kept))[name].float()

    def _text_of(self, caption: str) -> Tensor:
        row = self._row(TEXT, self._names.of_caption(caption))
        return padded(row["features"].float(), self._max_tokens)

    def _row(self, kind: str, key: str) -> Row:
        store = self._stores[kind]
        try:
            return store.read(key)
        except (KeyError, Damaged) as error:
            lost = f"holds no {key[:12]}" if isinstance(error, KeyError) else str(error)
        where = str(store.shard_of(key) or store.folder)
        if self._remake is None or kind not in self._remake.kinds:
            message = f"is damaged: {lost}; `mm data precompute` makes it again where it is removed"
            raise UserError(Problem(where, message))
        with self._making:
            aside(f"{where} is damaged and made again: {lost}")
            self._remake(kind, key)
        return store.read(key)


class Remake:
    """Makes the rows of a damaged shard again; the encoders are built for it alone."""

    def __init__(
        self,
        kinds: frozenset[str],
        asks: Asks,
        names: Names,
        stores: Mapping[str, Store],
        encoders: Encoders,
    ) -> None:
        self.kinds = kinds
        """What can be made again."""
        self._asks, self._names, self._stores, self._encoders = asks, names, stores, encoders

    def __call__(self, kind: str, key: str) -> None:
        """Makes a shard again that should hold a key, without the rows that this dataset doesn't know.

        Raises:
            UserError: A clip can't be read any more.
        """
        store = self._stores[kind]
        old, keys = store.shard_of(key), {key, *store.keys_beside(key)}
        make = self._captions if kind == TEXT else self._clips
        store.write(make(kind, keys))
        self._encoders.forget()
        if old is not None and store.shard_of(key) != old:
            old.unlink(missing_ok=True)
        store.seal()

    def _captions(self, _: str, keys: set[str]) -> dict[str, Row]:
        found = {self._names.of_caption(one): one for one in captions_of(self._asks(), self._names)}
        wanted = {key: found[key] for key in sorted(keys & found.keys())}
        return dict(zip(wanted, self._encoders.of_captions(list(wanted.values())), strict=True))

    def _clips(self, kind: str, keys: set[str]) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        asks = [
            asked for asked in self._names.variants(self._asks()) if self._names.of_clip(kind, asked) in keys
        ]
        lost: list[Problem] = []
        for asked, clip in loaded(asks, self._names.data):
            if isinstance(clip, BadClip):
                why = f"could be read when features were made; {clip.stage}: {clip.reason}"
                lost.append(Problem(str(asked.record.path), why))
            else:
                rows[self._names.of_clip(kind, asked)] = self._encoders.of_clip(clip, [kind])[kind]
        if lost:
            raise UserError(lost)
        return rows
