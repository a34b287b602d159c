"""Makes the items of a job: a model loaded once, a run for each batch, failures that stop nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import attrs

from mm_config.content import Input, made_of
from mm_config.durable import staged_folder
from mm_config.options import RunOptions
from mm_config.runs import recorded, request_inputs
from mm_config.schema import UserError, spec_hash
from mm_config.specs import GenerationRequest, InferSpec
from mm_infer.carried_out import request_refusals
from mm_infer.jobs.items import (
    VIDEO,
    Failure,
    Item,
    forget_failures,
    free_folder,
    write_failure,
    write_item,
)
from mm_infer.layout import Layout
from mm_infer.making import make_files
from mm_infer.opening import Generation
from mm_infer.pipeline import Pipeline
from mm_infer.requests import check_requests
from mm_infer.session import hashed, head_of_result, loaded_by_ranks, opened_by_ranks, run_of
from mm_infer.wanted import videos_in_result, wanted_of
from mm_infer.watching import UNWATCHED, Watch
from mm_models import device_names, peak_gib

_TOLD = ("mm-infer", "mm-models", "torch", "av")
"""Packages whose versions results tell."""

T = TypeVar("T")


@attrs.frozen(eq=False)
class Maker:
    """A loaded generation that makes items; all ranks make its calls together."""

    generation: Generation
    """What was opened."""
    head: Mapping[str, Any]
    """What results say of the spec and its experts."""
    inputs: Mapping[str, Input]
    """What items are made of, apart from their requests; nothing on ranks but the first."""
    pipeline: Pipeline
    """What makes them."""

    @property
    def at_once(self) -> int:
        """Items that are made together."""
        return self.generation.spec.runtime.batch_size * self.generation.layout.data_ranks

    def check(self, request: GenerationRequest) -> None:
        """Refuses a request that is known to fail before it is begun.

        Raises:
            UserError: It asks for what the spec or its network can't make.
        """
        if problems := list(request_refusals([request])):
            raise UserError(problems)
        check_requests(self.generation.spec, [request])

    def made_of(self, request: GenerationRequest) -> str:
        """All that a request's video follows from, as its run records it; on the first rank.

        Raises:
            UserError: A file that the request names can't be read.
        """
        inputs = {**self.inputs, **request_inputs([request])}
        return made_of(spec_hash(self.generation.spec), inputs)


def open_maker(
    spec: InferSpec, options: RunOptions, requests: Sequence[GenerationRequest] | None, layout: Layout
) -> Maker:
    """Opens and loads a generation whose items are made one after the other.

    Args:
        spec: What is carried out.
        options: Where runs and locations are looked up.
        requests: What is known of what will be made; None where it comes later.
        layout: The ranks, all of which make the call.

    Raises:
        UserError: As `mm_infer.session.opened_by_ranks`.
    """
    # None would mean the videos of the spec, whose images no item is made of.
    options = attrs.evolve(options, requests=tuple(requests or ()))
    generation = opened_by_ranks(spec, options, requests, layout)
    head, inputs = head_of_result(generation), hashed(generation)
    pipeline = loaded_by_ranks(generation)
    # Its adapters are in the networks now.
    return Maker(attrs.evolve(generation, adapters=()), head, inputs, pipeline)


def make_items(
    maker: Maker,
    items: Sequence[Item],
    out: Path,
    told: Callable[[Item, Path | UserError], None],
    watch: Watch = UNWATCHED,
) -> None:
    """Makes items that fit into one batch of each group of ranks; where they fail together, each alone.

    Args:
        maker: What makes them.
        items: At most `maker.at_once`.
        out: Gets a folder for each, whole or not at all, or the record of its failure.
        told: Called for each item, on every rank, with its folder or why it could not be made.
        watch: What looks on.
    """
    try:
        folders = _made(maker, items, out, watch)
    except UserError as error:
        if len(items) > 1:
            for item in items:
                make_items(maker, [item], out, told, watch)
            return
        (item,) = items
        failure = Failure(item.name, item.place, item.request, tuple(error.problems))
        maker.pipeline.layout.ranks.on_first(lambda: _on_disk(out, lambda: write_failure(out, failure)))
        told(item, error)
    else:
        for item, folder in zip(items, folders, strict=True):
            told(item, folder)


def _made(maker: Maker, items: Sequence[Item], out: Path, watch: Watch) -> list[Path]:
    """The folders of items that are made together, in a run of theirs: bits may depend on the batch.

    Raises:
        UserError: One of them can't be made, or the folder can't be written.
    """
    ranks, started, timings = maker.pipeline.layout.ranks, time.perf_counter(), dict[str, float]()
    requests = tuple(item.request for item in items)
    options = attrs.evolve(maker.generation.options, requests=requests)
    run = run_of(attrs.evolve(maker.generation, options=options), maker.inputs)
    recording = recorded(run) if ranks.is_first else nullcontext()
    with recording, ExitStack() as placing, ranks.naming_who_is_missing():
        folders = _paths(ranks.on_first(lambda: _free_folders(out, items)))
        stages = _paths(ranks.on_first(lambda: _stages(folders, placing)))
        wanted = wanted_of(requests, run, [stage / VIDEO for stage in stages])
        told, _ = make_files(maker.pipeline, wanted, timings, watch)
        spent: dict[str, Any] = {
            "timings": timings,
            "peak_gib": peak_gib(maker.pipeline.device),
            "seconds": time.perf_counter() - started,
        }

        def finish() -> None:
            place = maker.pipeline.device
            about = {"devices": list(device_names(place)), "versions": {one: version(one) for one in _TOLD}}
            for item, stage, digests in zip(items, stages, told, strict=True):
                video = {"file": VIDEO, "sha256": digests["sha256"], "frames": digests["frames"]}
                said = {"seed": item.request.seed, "video": video, "run": run.record.path}
                write_item(stage, item, {**maker.head, **said, **spent, **about})
            placing.close()
            videos = [
                attrs.evolve(one, path=(folder / VIDEO).absolute())
                for one, folder in zip(wanted, folders, strict=True)
            ]
            run.finish({**maker.head, "videos": videos_in_result(videos, told), **spent})
            forget_failures(out, [item.name for item in items])

        ranks.on_first(lambda: _on_disk(out, finish))
    return folders


def _free_folders(out: Path, items: Sequence[Item]) -> list[str]:
    folders: list[Path] = []
    for item in items:
        folders.append(free_folder(out, item, folders))
    return list(map(str, folders))


def _stages(folders: Sequence[Path], placing: ExitStack) -> list[str]:
    """Where each item is written, until the folders take their places as the stack is closed."""
    return [str(_on_disk(one, lambda one=one: placing.enter_context(staged_folder(one)))) for one in folders]


def _paths(texts: Sequence[str]) -> list[Path]:
    return list(map(Path, texts))


def _on_disk(path: Path, write: Callable[[], T]) -> T:
    """What is written, or a UserError that says why it can't be."""
    try:
        return write()
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from error
