"""Makes, keeps and writes the videos of requests: latents first, then frames as they are decoded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import attrs
import torch

from mm_config.runs import digests_of
from mm_infer.keeping import drain, drained, keeping_previews, naming
from mm_infer.latents import Denoised, write_latents
from mm_infer.pipeline import Pipeline, Video, denoised_turns, frames_of, videos_on_all_ranks
from mm_infer.requests import Inputs
from mm_infer.wanted import Wanted
from mm_infer.watching import UNWATCHED, Watch
from mm_infer.writing import write_frames


def make_files(
    pipeline: Pipeline,
    wanted: Sequence[Wanted],
    timings: dict[str, float],
    watch: Watch = UNWATCHED,
    *,
    whole: bool = False,
) -> tuple[list[dict[str, str | int]], list[Video]]:
    """Makes videos and writes their files; each group of ranks writes its own.

    Args:
        pipeline: What makes them; all its ranks make the call.
        wanted: The videos.
        timings: Gets the seconds of each stage.
        watch: What looks on.
        whole: Whether the first rank gets the videos, too.

    Returns:
        Digests of each file with the number of the first video of its batch, on every rank; and the videos,
        where they are wanted.

    Raises:
        UserError: A file can't be written, or the latents are not finite in the end.
    """
    spec, ranks = pipeline.spec, pipeline.layout.ranks
    inputs = Inputs(tuple(one.request for one in wanted))
    videos, told = dict[int, Video](), dict[int, dict[str, str | int]]()

    def keep(turn: Mapping[int, Denoised]) -> dict[int, Video]:
        if not pipeline.layout.leads:
            for one in turn.values() if pipeline.decodes else ():
                drain(frames_of(pipeline, one.latents))
            return {}
        for number, one in turn.items():
            write_latents(wanted[number].latents, one, spec, wanted[number].run)
        made: dict[int, Video] = {}
        for number, one in turn.items():
            place, frames = wanted[number], frames_of(pipeline, one.latents)
            with naming(place.latents), timed(timings, "decode"), drained(frames) as parts:
                if whole or watch.on_frames is not None:
                    all_frames = torch.cat([*parts])
                    parts = iter([all_frames])
                    if watch.on_frames is not None:
                        watch.on_frames(all_frames)
                    if whole:
                        made[number] = Video(one.request, all_frames)
                write_frames(place.path, parts, one.request, spec, place.run)
            told[number] = digests_of(place.path) | {"batch": min(turn)}
        return made

    with timed(timings, "generate"):
        watch = attrs.evolve(
            watch,
            timed=partial(timed, timings),
            on_preview=watch.on_preview or keeping_previews(pipeline, wanted),
        )
        for turn in denoised_turns(pipeline, inputs, watch):
            made = ranks.together(lambda turn=turn: keep(turn))
            every = videos_on_all_ranks(pipeline, inputs, made) if whole else {}
            videos |= every if ranks.is_first else {}
    found = {int(number): one for part in ranks.gather(told) for number, one in part.items()}
    return [found[number] for number in range(len(wanted))], [videos[number] for number in sorted(videos)]


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the seconds that a stage took."""
    started = time.perf_counter()
    yield
    timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - started
