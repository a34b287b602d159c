"""Sparse attention in a generation: against networks whose self-attention is written out with a mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
from mm_config import replace
from mm_config.families.tiny import TINY
from mm_config.options.run_options import RunOptions
from mm_config.planning.denoising import infer_work, left_out
from mm_config.planning.plan import plan
from mm_config.specs import (
    AttentionImpl,
    CompileBackend,
    CompileSpec,
    Expert,
    FeatureCacheSpec,
    GenerationRequest,
    GuidanceMode,
    InferSpec,
    Residency,
    SparseAttentionSpec,
    SparsePattern,
)
from mm_infer import load
from mm_infer.denoise import denoise
from mm_infer.passes import Branch, Forward, Pass, by_networks, told_to
from mm_infer.pipeline import Pipeline
from mm_infer.requests import noise_of
from mm_models import seeding, with_sparse_attention
from mm_models.ops import choose
from mm_models.ops.sparse_attention import FLEX, MASKED, SparseForm
from mm_models.parallel import context_of, over_ranks, share_tokens
from tests.forked_ranks import RunRanks

LOCAL = SparseAttentionSpec(
    pattern=SparsePattern.LOCAL, window=1, dense_steps=2, dense_layers=1, block_size=3
)
RADIAL = SparseAttentionSpec(decay_factor=0.2, dense_steps=0, block_size=2)
REQUESTS = [
    GenerationRequest(prompt="a red circle moving right", seed=1),
    GenerationRequest(prompt="a blue square moving up", seed=2),
]


@pytest.fixture
def sparse(random_spec: InferSpec) -> InferSpec:
    """Six steps and three blocks, of which the first is exact, as are two steps; 5 frames of 2 x 2 tokens."""
    return replace(random_spec, {"model.num_layers": 3, "sparse_attention": LOCAL})


def awake(spec: InferSpec, options: RunOptions) -> Pipeline:
    """A pipeline whose output layers are not zero."""
    pipeline = load(spec, options)
    for seed, network in enumerate(pipeline.networks.values()):
        weight = network.get_parameter("proj_out.weight")
        torch.nn.init.normal_(weight, std=0.3, generator=seeding.generator(seed, "awake"))
    return pipeline


def in_sight(query: int, key: int) -> bool:
    """Whether two blocks of 3 tokens have two whose frames, of 4 tokens, are at most one apart."""
    frames = [
        [token // 4 for token in range(3 * (one // 3), min(3 * (one // 3) + 3, 20))] for one in (query, key)
    ]
    return min(abs(a - b) for a in frames[0] for b in frames[1]) <= 1


def written_out(networks: Mapping[Expert, nn.Module], sees: Callable[[int, int], bool]) -> Forward:
    """Passes of exact networks whose self-attention is exchanged for one that knows step and block."""
    step = [0]
    hidden = [[not sees(one, other) for other in range(20)] for one in range(20)]

    def attention(layer: int) -> Callable[..., Tensor]:
        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            scores = torch.einsum("bshd,blhd->bhsl", query, key) / math.sqrt(query.shape[-1])
            if step[0] >= 2 and layer >= 1:
                scores = scores.masked_fill(torch.tensor(hidden), -math.inf)
            weights = scores.exp()
            return torch.einsum("bhsl,blhd->bshd", weights / weights.sum(-1, keepdim=True), value)

        return attend

    for network in networks.values():
        for index, block in enumerate(network.get_submodule("blocks").children()):
            own = block.get_submodule("attn1")
            own.ops = attrs.evolve(own.ops, self_attention=attention(index))

    def passed(which: Pass, *inputs: Tensor) -> Tensor:
        step[0] = which.step
        return networks[which.expert](*inputs)

    return passed


def denoised(pipeline: Pipeline, forward: Forward) -> Tensor:
    encode, spec = pipeline.text_encoder.encode, pipeline.spec
    with torch.inference_mode():
        return denoise(
            torch.stack([noise_of(spec, one) for one in REQUESTS]),
            torch.stack(list(encode([one.prompt for one in REQUESTS]))),
            torch.stack(list(encode([spec.negative_prompt] * 2))),
            forward,
            spec.sampler,
            spec.boundary,
        )


def test_steps_and_blocks_leave_out_what_the_spec_says(sparse: InferSpec, options: RunOptions):
    found = awake(sparse, options).denoise(REQUESTS)
    exact = awake(replace(sparse, "sparse_attention", None), options)
    unmasked = exact.denoise(REQUESTS)
    wanted = denoised(exact, written_out(exact.networks, in_sight))
    assert float((found - wanted).abs().max()) <= 1e-5
    assert float((found - unmasked).abs().max()) > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime.guidance": GuidanceMode.SEQUENTIAL},
        {"runtime.batch_size": 1},
        {"runtime.attention": AttentionImpl.REFERENCE},
        {"runtime.residency.experts": Residency.LAYERWISE, "runtime.residency.prefetch": 0},
        {"runtime.residency.experts": Residency.SWAP},
    ],
)
def test_a_runtime_changes_no_video(spec: InferSpec, options: RunOptions, changes: dict[str, object]):
    released = replace(spec, "sparse_attention", attrs.evolve(LOCAL, dense_layers=0))
    found, wanted, exact = (
        load(replace(released, how), options).denoise(REQUESTS)
        for how in (changes, {}, {"sparse_attention": None})
    )
    assert float((found - wanted).abs().max()) <= 1e-5
    assert float((exact - wanted).abs().max()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("form", [MASKED, FLEX])
def test_compiled_blocks_are_sparse(
    spec: InferSpec, options: RunOptions, form: SparseForm, monkeypatch: pytest.MonkeyPatch
):
    """One graph for exact steps, one for sparse ones, each whole."""
    torch._dynamo.reset()
    sparse = replace(spec, "sparse_attention", attrs.evolve(LOCAL, dense_layers=0))
    wanted = load(sparse, options).denoise(REQUESTS)
    monkeypatch.setattr("mm_models.sparse.choose_sparse", lambda *_, **__: form)
    compiled = CompileSpec(enabled=True, backend=CompileBackend.AOT_EAGER)
    before = mm_models.compiled_graphs()
    found = load(replace(sparse, "runtime.compile", compiled), options).denoise(REQUESTS)
    assert float((found - wanted).abs().max()) <= 1e-5
    assert mm_models.compiled_graphs() - before == 2


CACHE = FeatureCacheSpec(dense_share=0.0, derivatives=0, skipped=(3,))


@pytest.mark.parametrize(("pattern", "cache"), [(LOCAL, CACHE), (RADIAL, None)])
def test_what_is_left_out_is_not_computed_and_the_plan_counts_the_same(
    sparse: InferSpec, options: RunOptions, pattern: SparseAttentionSpec, cache: FeatureCacheSpec | None
):
    spec = replace(sparse, {"sparse_attention": pattern, "feature_cache": cache})
    pipeline = load(spec, options)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        pipeline.denoise(REQUESTS[:1])
    assert counter.get_total_flops() == infer_work(spec).step_flops
    assert infer_work(spec).step_flops < infer_work(replace(spec, "sparse_attention", None)).step_flops


def test_an_example_saves_what_is_counted_by_hand(sparse: InferSpec):
    """Frames are blocks of 4 that see their neighbours, 13 of 25 pairs: 12 x 16 pairs of tokens are left out,
    of 4 x 32 FLOPs each, in 2 of 3 blocks and 4 of 6 steps of two passes."""
    spec = replace(sparse, "sparse_attention", attrs.evolve(LOCAL, block_size=4))
    exact = infer_work(replace(sparse, "sparse_attention", None))
    assert exact.step_flops - infer_work(spec).step_flops == 12 * 16 * 4 * 32 * 2 * 4 * 2
    assert left_out(spec, first_step=5) == 12 * 16 * 4 * 32 * 2 * 1 * 2
    assert "in 4 of 6 steps" in plan(spec).notes[-1]


def test_ranks_that_share_heads_attend_as_one_does(run_ranks: RunRanks, tmp_path: Path):
    """3 frames of 1 x 3 tokens: two ranks have 5 and 4 of them, and one token of padding."""
    for ranks in (1, 2):
        run_ranks(_share_tokens, tmp_path, ranks=ranks)
    whole, *parts = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    for part in parts:
        assert float((part - whole).abs().max()) <= 1e-5
    assert float((whole[0] - whole[1]).abs().max()) > 1e-3


def _share_tokens(rank: int, folder: Path) -> None:
    """An exact step and a sparse one of the same inputs, of a network whose tokens all ranks share."""
    ranks, device = dist.get_world_size(), torch.device("cpu")
    context = context_of(init_device_mesh("cpu", (1, ranks), mesh_dim_names=("ring", "ulysses")))
    model = replace(TINY.model, {"num_layers": 2})
    plain = AttentionImpl.REFERENCE
    spec = attrs.evolve(LOCAL, dense_steps=1, dense_layers=0, block_size=2)
    ops, sparse = with_sparse_attention(choose(device, plain), spec, model, device, plain, compiled=False)
    network = mm_models.build(model, device="cpu", ops=over_ranks(ops, context))
    mm_models.initialize(network, 3)
    torch.nn.init.normal_(network.get_parameter("proj_out.weight"), generator=seeding.generator(1, "awake"))
    sparse.attend_in(network)
    if context is not None:
        share_tokens(network, context)
    forward = told_to(sparse, by_networks({Expert.SINGLE: network}))
    latents = torch.randn(1, model.in_channels, 3, 4, 12, generator=seeding.generator(2, "latents"))
    text = torch.randn(1, 7, model.text_dim, generator=seeding.generator(3, "text"))
    with torch.inference_mode():
        made = [
            forward(Pass(step, Expert.SINGLE, Branch.PROMPT), latents, torch.full((1,), 900.0), text)
            for step in range(2)
        ]
    torch.save(torch.stack(made), folder / f"{ranks}-{rank}.pt")
