"""Feature caches: against passes that are computed again by hand, with what the blocks add kept beside."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import pairwise
from math import factorial
from pathlib import Path

import attrs
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import mm_models
from mm_config import replace, rules
from mm_config.families.tiny import TINY
from mm_config.options.run_options import RunOptions
from mm_config.planning.denoising import infer_work
from mm_config.planning.inference import infer_memory
from mm_config.schema import UserError
from mm_config.specs import (
    AttentionImpl,
    Expert,
    FeatureCacheSpec,
    GenerationRequest,
    GuidanceMode,
    InferSpec,
)
from mm_infer import load
from mm_infer.caching import cached
from mm_infer.denoise import denoise
from mm_infer.passes import Branch, Pass, by_networks
from mm_infer.pipeline import Pipeline
from mm_infer.requests import noise_of
from mm_models import seeding
from mm_models.ops import choose
from mm_models.parallel import context_of, over_ranks, share_tokens
from tests.forked_ranks import RunRanks

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
@pytest.mark.parametrize(
    ("derivatives", "skipped"), [(0, (1, 2, 7, 9)), (1, (2, 3, 8, 10, 11)), (2, (3, 5, 10))]
)
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


def test_what_is_skipped_is_not_computed_and_the_plan_counts_the_same(pipeline: Pipeline, long: InferSpec):
    exact = replace(long, "feature_cache", None)
    counted = {}
    for name, spec in {"cached": long, "exact": exact}.items():
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            attrs.evolve(pipeline, spec=spec).denoise(REQUESTS[:1])
        counted[name] = counter.get_total_flops()
    assert counted == {"cached": infer_work(long).step_flops, "exact": infer_work(exact).step_flops}
    kept, none = (infer_memory(spec).phases["denoising"]["activations"] for spec in (long, exact))
    # D0, D1 and the stream, of two branches: 5 latent frames of 8 x 8 cells in patches of 4 x 4, width 32.
    assert kept - none == 3 * 2 * long.runtime.batch_size * 5 * 2 * 2 * 32 * 4


def test_an_expert_begins_anew_and_what_the_other_knew_is_freed(pipeline: Pipeline):
    forward = cached(by_networks(pipeline.networks), pipeline.networks, attrs.evolve(CACHE, skipped=(2, 3)))
    inputs = (torch.ones(1, 12, 5, 8, 8), torch.full((1,), 900.0), torch.ones(1, 7, 64))
    before = _streams()
    with torch.inference_mode():
        for step in range(3):
            forward(Pass(step, Expert.HIGH_NOISE, Branch.PROMPT), *inputs)
        assert _streams() - before == 2
        with pytest.raises(AssertionError, match="nothing is known of prompt of this expert"):
            forward(Pass(3, Expert.LOW_NOISE, Branch.PROMPT), *inputs)
        assert _streams() == before
        forward(Pass(4, Expert.LOW_NOISE, Branch.PROMPT), *inputs)
        assert _streams() - before == 1


def _streams() -> int:
    """How many tensors of a stream's shape are alive."""
    gc.collect()
    return sum(type(one) is Tensor and one.shape == (1, 5 * 2 * 2, 32) for one in gc.get_objects())


def test_a_network_is_left_as_it_was_even_after_an_error(pipeline: Pipeline):
    network = pipeline.networks[Expert.HIGH_NOISE]
    blocks, names = network.get_submodule("blocks"), list(network.state_dict())
    forward = cached(by_networks(pipeline.networks), pipeline.networks, CACHE)
    with pytest.raises(UserError):
        forward(
            Pass(0, Expert.HIGH_NOISE, Branch.PROMPT),
            torch.ones(1, 3, 1, 2, 2),
            torch.ones(1),
            torch.ones(1, 7, 64),
        )
    assert network.get_submodule("blocks") is blocks and list(network.state_dict()) == names


def test_ranks_that_share_tokens_know_what_one_knows(run_ranks: RunRanks, tmp_path: Path):
    for ranks in (1, 2):
        run_ranks(_share_tokens, tmp_path, ranks=ranks)
    whole, *parts = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    for part in parts:
        assert float((part - whole).abs().max()) <= 1e-5


def _share_tokens(rank: int, folder: Path) -> None:
    """Two computed steps and a skipped one, of a network whose tokens all ranks share."""
    ranks = dist.get_world_size()
    context = context_of(init_device_mesh("cpu", (1, ranks), mesh_dim_names=("ring", "ulysses")))
    spec = replace(TINY.model, {"num_layers": 2})
    ops = over_ranks(choose(torch.device("cpu"), AttentionImpl.AUTO, torch.float32), context)
    network = mm_models.build(spec, device="cpu", ops=ops)
    mm_models.initialize(network, 3)
    torch.nn.init.normal_(network.get_parameter("proj_out.weight"), generator=seeding.generator(1, "awake"))
    if context is not None:
        share_tokens(network, context)
    networks = {Expert.SINGLE: network}
    forward = cached(by_networks(networks), networks, attrs.evolve(CACHE, skipped=(2,)))
    latents = torch.randn(1, spec.in_channels, 3, 4, 12, generator=seeding.generator(2, "latents"))
    text = torch.randn(1, 7, spec.text_dim, generator=seeding.generator(3, "text"))
    with torch.inference_mode():
        *_, made = (
            forward(
                Pass(step, Expert.SINGLE, Branch.PROMPT),
                latents * (1 - 0.1 * step),
                torch.full((1,), 900.0 - 50 * step),
                text,
            )
            for step in range(3)
        )
    torch.save(made, folder / f"{ranks}-{rank}.pt")
