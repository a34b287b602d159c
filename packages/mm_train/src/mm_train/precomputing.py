"""Features computed ahead of a training: into its cache, or into a folder that specs name."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch

from mm_config.content import Input
from mm_config.options import RunOptions
from mm_config.rules import check, counted
from mm_config.schema import Problem, UserError
from mm_config.specs import Cache, PrecomputedSpec, TrainSpec
from mm_config.stored import from_payload, to_payload
from mm_data import Bad, Dataset, Store, clip_digests
from mm_models import device, encoder_inputs, require_releases
from mm_models.ranks import Ranks, joined
from mm_train.batches import asks_of
from mm_train.by_ray import Share, encode_by_ray
from mm_train.carried_out import CARRIED_OUT
from mm_train.features.cached import cached, make_all, make_share, stores_of
from mm_train.features.encoding import Encoders
from mm_train.features.kinds import FIELDS, LATENTS, TEXT, encoders_of, precomputed_kinds
from mm_train.features.making import Asks, Names
from mm_train.features.precomputed import Precomputed, read_precomputed, write_head
from mm_train.mindspeed_features import convert
from mm_train.preparing import planned, prepared
from mm_train.starting import require_short_captions


def precompute_features(
    spec: TrainSpec, options: RunOptions, out: Path | None, *, by_ray: bool = False
) -> list[str]:
    """Encodes what a training sees and returns what a person wants to know of it.

    Args:
        spec: The training.
        options: Where data, releases and the cache are.
        out: The folder of the features; None for the cache.
        by_ray: Whether the nodes of a Ray cluster encode into the folder, instead of ranks.

    Raises:
        UserError: The data asks for something that trainings can't do, clips or encoders are not there, or
            features can't be written.
    """
    if refused := [one for one in CARRIED_OUT.refusals(spec) if one.path.startswith("spec.data.")]:
        raise UserError(refused)
    check(_from_kept(spec, out))
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(Problem(str(out), "is no folder"))
    data = attrs.evolve(spec.data, precomputed=None, cache=Cache.NONE)
    plain = attrs.evolve(spec, data=data, validation=None)
    picked = device.pick(spec.runtime.device)
    timeout = timedelta(minutes=spec.runtime.timeout_minutes)
    device.allow_tf32(picked, spec.precision.allow_tf32)
    with joined(picked, timeout) as ranks:
        dataset, _ = prepared(plain, options, ranks)
        root = options.cache_dir / "features" if out is None else out
        asks = asks_of(planned(plain, dataset, options, ranks), dataset)
        work = ranks.together(lambda: work_of(spec, dataset, asks, options, picked, root))
        if TEXT in work.stores:
            ranks.on_first(lambda: require_short_captions(plain, options, dataset))
        if out is None:
            return list(_told(work, into_cache(work, options, ranks)))
        if by_ray:
            whole = attrs.evolve(options, runs_dir=options.runs_dir.resolve())
            bad = encode_by_ray(partial(_share_encoder, to_payload(spec), whole, out.resolve()))
        else:
            bad = make_all(asks, len(dataset.records), work.names, work.stores, work.encoders, ranks)
        found = into_folder(work, out, bad, ranks)
        return [*_told(work, len({one["path"] for one in found.bad})), *spec_lines(spec, found)]


def _from_kept(spec: TrainSpec, out: Path | None) -> TrainSpec:
    """The training as it would go on from the features, which may say that they are drawn anew each time."""
    if spec.data.precomputed is not None:
        return spec
    if out is None:
        return attrs.evolve(spec, data=attrs.evolve(spec.data, cache=Cache.LATENTS))
    kept = PrecomputedSpec(name="features", empty_caption=True)
    return attrs.evolve(spec, data=attrs.evolve(spec.data, cache=Cache.NONE, precomputed=kept))


@attrs.frozen(eq=False)
class Work:
    """What is computed ahead."""

    spec: TrainSpec
    """Its data and encoders."""
    dataset: Dataset
    """Its clips, which know their bytes."""
    asks: Asks
    """Its clips as a plan asks for them."""
    inputs: Mapping[str, Input]
    """What the encoders' weights are, by canonical path."""
    stores: dict[str, Store]
    """Where features go, by kind."""
    names: Names
    """What they are called."""
    encoders: Encoders
    """What makes them."""


def work_of(
    spec: TrainSpec, dataset: Dataset, asks: Asks, options: RunOptions, picked: torch.device, root: Path
) -> Work:
    """What is to be computed below a folder for a training.

    Args:
        spec: The training; what its `data.precomputed` names is computed, or all.
        dataset: Its clips, which know their bytes.
        asks: Its clips as the plan asks for them.
        options: Where releases are.
        picked: Where encoders compute.
        root: The folder of all stores.

    Raises:
        UserError: An encoder's weights are nowhere, or are not those that the spec asks for.
    """
    there = encoders_of(spec)
    chosen = precomputed_kinds(spec) or there.keys()
    kinds = [kind for kind in there if kind in chosen]
    encoders = {FIELDS[kind]: there[kind] for kind in kinds}
    require_releases(encoders, options.locations)
    inputs = encoder_inputs(encoders, options)
    stores = stores_of(root, spec, kinds, inputs)
    made = {kind: store.made_with for kind, store in stores.items()}
    names = Names(spec.data, clip_digests(dataset), made)
    return Work(spec, dataset, asks, inputs, stores, names, Encoders(spec, options.locations, picked))


def _share_encoder(payload: Any, options: RunOptions, out: Path) -> Share:
    """What encodes shares of a training's clips and captions on a worker that shares the folders."""
    spec = from_payload(payload)
    assert isinstance(spec, TrainSpec)
    data = attrs.evolve(spec.data, precomputed=None, cache=Cache.NONE)
    plain = attrs.evolve(spec, data=data, validation=None)
    alone, picked = Ranks(0, 1, grouped=False), device.pick(spec.runtime.device)
    device.allow_tf32(picked, spec.precision.allow_tf32)
    dataset, _ = prepared(plain, options, alone)
    asks = asks_of(planned(plain, dataset, options, alone), dataset)
    work = work_of(spec, dataset, asks, options, picked, out)
    return lambda share: make_share(asks, len(dataset.records), work.names, work.stores, work.encoders, share)


def into_folder(work: Work, out: Path, bad: Iterable[Bad], ranks: Ranks) -> Precomputed:
    """Says in a folder what it holds, once all is computed.

    Raises:
        UserError: It can't be written.
    """
    unreadable = {one.index: one for one in bad}

    def listed() -> list[dict[str, str]]:
        if LATENTS not in work.stores:
            return []
        return [
            {
                "key": work.names.of_clip(LATENTS, asked),
                "path": str(asked.record.path),
                "stage": unreadable[asked.index].stage,
                "reason": unreadable[asked.index].reason,
            }
            for asked in work.names.variants(work.asks())
            if asked.index in unreadable
        ]

    def finish() -> str:
        stores = stores_of(out, work.spec, work.stores, work.inputs)
        for store in stores.values():
            store.seal()
        return write_head(out, stores, listed(), work.inputs).digest

    ranks.on_first(finish)
    return read_precomputed(out)


def into_cache(work: Work, options: RunOptions, ranks: Ranks) -> int:
    """Computes what a training with `data.cache = latents` would compute before its first step; returns the
    number of clips that can't be read.

    Raises:
        UserError: As `into_folder`.
    """
    spec = attrs.evolve(work.spec, data=attrs.evolve(work.spec.data, cache=Cache.LATENTS, precomputed=None))
    if work.stores.keys() != encoders_of(spec).keys():
        raise UserError("a cache holds all kinds of features; name a folder by --out for some of them")
    bad = cached(
        spec,
        work.dataset,
        work.asks,
        work.names,
        work.stores,
        work.encoders,
        ranks,
        options.cache_dir,
        work.inputs,
    )
    return len(bad)


def spec_lines(spec: TrainSpec, found: Precomputed) -> Iterator[str]:
    """The lines that name computed features in a spec and on the command line."""
    before = spec.data.precomputed
    name = found.folder.resolve().name if before is None else before.name
    kinds = "".join(f", {kind}=False" for kind in ("latents", "text") if kind not in found.stores)
    empty = ", empty_caption=True" if found.holds_empty_caption else ""
    yield f'precomputed=PrecomputedSpec(name="{name}"{kinds}{empty}, digest="{found.digest}")'
    yield f"--location {shlex.quote(f'{name}={found.folder}')}"


def convert_features(spec: TrainSpec, options: RunOptions, folder: Path, out: Path) -> list[str]:
    """Converts features that MindSpeed-MM extracted and returns what a person wants to know of it.

    Raises:
        UserError: As `convert`.
    """
    found = convert(spec, folder, out, options)
    name = found.manifest.parent.resolve().name
    dataset = f'dataset=ManifestSpec(name="{name}", path="{found.manifest}")'
    return [*found.told, dataset, *spec_lines(spec, found.features)]


def _told(work: Work, bad: int) -> Iterator[str]:
    clips = len({asked.index for asked in work.asks()})
    left_out = f", {bad} of them can't be read" if bad else ""
    yield f"{', '.join(sorted(work.stores))} of {counted(clips, 'clip')}{left_out}"
