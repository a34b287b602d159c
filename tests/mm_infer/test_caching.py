"""Feature caches: against passes that are computed again by hand, with what the blocks add kept beside."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import factorial

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mm_models
from mm_config import replace, rules
from mm_config.options.run_options import RunOptions
from mm_config.planning.inference import infer_memory, infer_work
from mm_config.schema import UserError
from mm_config.specs import Expert, FeatureCacheSpec, GenerationRequest, GuidanceMode, InferSpec
from mm_infer import load
from mm_infer.caching import cached
from mm_infer.denoise import denoise
from mm_infer.passes import Branch, Pass, by_networks
from mm_infer.pipeline import Pipeline

CACHE = FeatureCacheSpec(dense_share=0.2, max_skipped=2, derivatives=1, skipped=(2, 3, 8, 10, 11))
REQUESTS = [
    GenerationRequest(prompt="a red circle moving right", seed=1),
    GenerationRequest(prompt="a blue square moving up", seed=2),
]


@pytest.fixture
def long(spec: InferSpec) -> InferSpec:
    """Twelve steps, six of each expert, with two blocks and guidance of both experts."""
    changes = {"sampler.steps": 12, "boundary": 0.93, "feature_cache": CACHE}
    return replace(spec, changes)


@pytest.fixture
def pipeline(long: InferSpec, options: RunOptions) -> Pipeline:
    return load(long, options)


def latents_of(pipeline: Pipeline, **changes: object) -> Tensor:
    spec = replace(pipeline.spec, dict(changes)) if changes else pipeline.spec
    return attrs.evolve(pipeline, spec=spec).denoise(REQUESTS)


def by_hand(pipeline: Pipeline, cache: FeatureCacheSpec) -> Callable[..., Tensor]:
    """Every branch by itself: polynomials of what the blocks added, by hooks on a network that runs whole.

    In a skipped step the blocks run as well, and the last one's output is exchanged for the guess.
    """
    kept: dict[tuple[Expert, str], list[tuple[int, Tensor]]] = {}

    def guess(points: list[tuple[int, Tensor]], step: int) -> Tensor:
        rows = [[added for _, added in points]]
        numbers = [number for number, _ in points]
        for _ in range(cache.derivatives):
            spans = [later - earlier for earlier, later in pairwise(numbers)][-(len(rows[-1]) - 1) :]
            differences = [b - a for a, b in pairwise(rows[-1])]
            rows.append([one / span for one, span in zip(differences, spans, strict=True)])
        ahead = step - numbers[-1]
        return sum((row[-1] * ahead**i / factorial(i) for i, row in enumerate(rows)), torch.zeros(()))

    def alone(which: Pass, branch: str, inputs: list[Tensor]) -> Tensor:
        network, points = pipeline.networks[which.expert], kept.setdefault((which.expert, branch), [])
        before: list[Tensor] = []
        blocks = list(network.get_submodule("blocks").children())

        def after(_: nn.Module, __: object, output: Tensor) -> Tensor:
            if which.step in (cache.skipped or ()):
                return before[0] + guess(points, which.step)
            points.append((which.step, output - before[0]))
            return output

        hooks = [
            blocks[0].register_forward_pre_hook(lambda _, given: before.append(given[0])),
            blocks[-1].register_forward_hook(after),
        ]
        velocity = network(*inputs)
        for hook in hooks:
            hook.remove()
        return velocity

    def forward(which: Pass, *inputs: Tensor) -> Tensor:
        names = ["prompt", "negative"] if which.branch is Branch.BOTH else [which.branch.value]
        halves = [one.chunk(len(names)) for one in inputs]
        return torch.cat([alone(which, name, [one[i] for one in halves]) for i, name in enumerate(names)])

    return forward


@pytest.mark.parametrize("guidance", [GuidanceMode.BATCHED, GuidanceMode.SEQUENTIAL])
@pytest.mark.parametrize(("derivatives", "skipped"), [(0, (1, 2, 7, 9)), (1, (2, 3, 8, 10, 11)), (2, (3, 5, 10))])
def test_skipped_steps_take_what_the_blocks_would_add_by_their_differences(
    pipeline: Pipeline, guidance: GuidanceMode, derivatives: int, skipped: tuple[int, ...]
):
    cache = attrs.evolve(CACHE, derivatives=derivatives, skipped=skipped)
    rules.check(replace(pipeline.spec, "feature_cache", attrs.evolve(cache, dense_share=0.0)))
    made = latents_of(pipeline, feature_cache=cache, **{"runtime.guidance": guidance})
    exact = latents_of(pipeline, feature_cache=None)
    wanted = _denoised_by_hand(pipeline, cache)
    assert float((made - wanted).abs().max()) <= 1e-5
    assert float((made - exact).abs().max()) > 1e-3


def _denoised_by_hand(pipeline: Pipeline, cache: FeatureCacheSpec) -> Tensor:
    """All requests as one batch, by the reference's passes."""
    spec = pipeline.spec
    from mm_infer.requests import noise_of

    encode = pipeline.text_encoder.encode
    return denoise(
        torch.stack([noise_of(spec, one) for one in REQUESTS]),
        torch.stack(list(encode([one.prompt for one in REQUESTS]))),
        torch.stack(list(encode([spec.negative_prompt] * 2))),
        by_hand(pipeline, cache),
        spec.sampler,
        spec.boundary,
    ).detach()


def test_a_video_is_the_same_in_every_batch_and_call(pipeline: Pipeline):
    together = pipeline.denoise(REQUESTS)
    alone = attrs.evolve(pipeline, spec=replace(pipeline.spec, "runtime.batch_size", 1))
    for made in (alone.denoise(REQUESTS), pipeline.denoise(REQUESTS), alone.denoise(REQUESTS)):
        assert float((made - together).abs().max()) <= 1e-5
