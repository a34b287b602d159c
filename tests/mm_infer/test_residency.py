"""Experts and encoders that wait: the same video, within the memory that `mm plan` says."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.planning.plan import plan
from mm_config.schema.errors import UserError
from mm_config.specs.diffusion import Expert
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.lora import AppliedLoraSpec
from mm_config.specs.serving import GuidanceMode, Residency, ResidencySpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights
from mm_infer import load
from mm_infer.pipeline import frames_of
from mm_infer.residency import placing
from mm_models.lora.adapter import HIGH_NOISE, Adapter, LowRank
from mm_models.lora.writing import save_adapters
from mm_models.seeding import generator
from tests.mm_infer.held import Held
from tests.mm_infer.residents import BLOCKS, PROMPT, spec_of, written

EXPERTS = (Residency.RESIDENT, Residency.SWAP, Residency.LAYERWISE)
ENCODERS = (Residency.RESIDENT, Residency.SWAP, Residency.LAYERWISE)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def spec() -> InferSpec:
    return spec_of()


@pytest.fixture(scope="module")
def options(spec: InferSpec, tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    """All that the spec names, and adapters of both experts that change matrices, biases and norms."""
    folder = tmp_path_factory.mktemp("parts")
    found = written(spec, folder)
    own: list[Location] = []
    for name in ("high", "low"):
        save_adapters({HIGH_NOISE: adapter(spec, name)}, folder / name, style="wan")
        own.append(Location(f"test/{name}", folder / name, "the test"))
    return RunOptions(runs_dir=found.runs_dir, locations=Locations((*found.locations.entries, *own)))


def adapter(spec: InferSpec, key: str) -> Adapter:
    shapes, draws = spec.model.parameter_shapes(), generator(key, "adapter")

    def drawn(*shape: int) -> Tensor:
        return 0.2 * torch.randn(*shape, generator=draws)

    layers: dict[str, LowRank] = {}
    for name in ("blocks.0.attn1.to_q", f"blocks.{BLOCKS - 1}.ffn.net.2", "condition_embedder.time_proj"):
        out, width = shapes[f"{name}.weight"]
        layers[name] = LowRank(drawn(2, width), drawn(out, 2), alpha=2.0)
    names = ("blocks.1.attn1.norm_q.weight", "blocks.1.attn2.to_k.bias", "blocks.2.ffn.net.0.proj.weight")
    return Adapter(layers, {name: drawn(*shapes[name]) for name in (*names, "proj_out.bias")})


def residency(experts: Residency, encoders: Residency, **others: Any) -> dict[str, ResidencySpec]:
    return {"runtime.residency": ResidencySpec(experts=experts, encoders=encoders, **others)}


def latents(spec: InferSpec, options: RunOptions) -> Tensor:
    return load(spec, options).denoise([PROMPT])


@pytest.mark.parametrize("encoders", ENCODERS)
@pytest.mark.parametrize("experts", EXPERTS)
def test_each_residency_makes_the_same_video(
    spec: InferSpec, options: RunOptions, experts: Residency, encoders: Residency
) -> None:
    (expected,) = load(spec, options)([PROMPT], output="float")
    pipeline = load(replace(spec, residency(experts, encoders)), options)
    for _ in range(2):  # What came once comes again.
        (video,) = pipeline([PROMPT], output="float")
        assert float((video.frames - expected.frames).abs().max()) <= 1e-5


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("kept", ["in files", "on the host"])
def test_adapters_come_with_the_weights(
    spec: InferSpec, options: RunOptions, merge: bool, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    high, low = (ReleasedWeights(name=f"test/{name}") for name in ("high", "low"))
    lora = AppliedLoraSpec(high_noise=high, low_noise=low, strength=0.5, merge=merge)
    adapted = replace(spec, {"loras": (lora,), "dtype": Dtype.BFLOAT16})
    expected = latents(adapted, options)
    if kept == "on the host":
        monkeypatch.setattr(placing, "wait_in_files", lambda residency, device: False)
    for experts in EXPERTS[1:]:
        found = latents(replace(adapted, residency(experts, Residency.SWAP)), options)
        assert torch.equal(found, expected), experts
    plain = latents(replace(spec, "dtype", Dtype.BFLOAT16), options)
    assert float((plain - expected).abs().max()) > 0.01


def test_drawn_weights_wait_as_their_seed(spec: InferSpec, options: RunOptions) -> None:
    drawn = replace(spec, {"high_noise": RandomWeights(seed=3), "low_noise": RandomWeights(seed=4)})
    whole = load(drawn, options).networks[Expert.HIGH_NOISE]
    pipeline = load(replace(drawn, residency(Residency.SWAP, Residency.SWAP)), options)
    pipeline.residents.room.enter(pipeline.residents.experts[Expert.HIGH_NOISE])
    waiting = pipeline.networks[Expert.HIGH_NOISE]
    for (name, one), other in zip(whole.named_parameters(), waiting.parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_only_the_blocks_on_their_way_are_there(
    spec: InferSpec, options: RunOptions, share: float, prefetch: int
) -> None:
    asked = replace(spec, residency(Residency.LAYERWISE, Residency.SWAP, share=share, prefetch=prefetch))
    if share == 0.5 and prefetch == 3:
        with pytest.raises(
            UserError, match="prefetch: is 3, but 2 of the network's 4 blocks wait: at most 1"
        ):
            load(asked, options)
        return
    pipeline, seen = load(asked, options), list[list[int]]()
    network = pipeline.networks[Expert.HIGH_NOISE]
    blocks: list[Any] = list(network.get_submodule("blocks").children())

    def look(*_: Any) -> None:
        there = [block.scale_shift_table.untyped_storage().nbytes() > 0 for block in blocks]
        seen.append([index for index, one in enumerate(there) if one])

    for block in blocks:
        block.register_forward_pre_hook(look)
    assert torch.allclose(pipeline.denoise([PROMPT]), latents(spec, options), atol=1e-5)
    waiting = range(BLOCKS) if share == 1.0 else (1, 3)
    for index, there in zip(range(BLOCKS), seen, strict=False):
        if index in waiting:
            place = waiting.index(index)
            on_their_way = (*waiting, *waiting)[place : place + 1 + prefetch]
            assert there == sorted({*range(BLOCKS)} - {*waiting} | {*on_their_way}), index


SIZES = {
    "weights": {"width": 256, "text_width": 256},
    "activations": {"width": 64, "height": 128, "num_frames": 17, "text_width": 16},
}


@pytest.mark.parametrize("dtype", [Dtype.FLOAT32, pytest.param(Dtype.BFLOAT16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", SIZES)
def test_each_residency_takes_what_is_planned(
    size: str, dtype: Dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 10 %: the whole, and denoising and decoding by themselves."""
    root = spec_of(**SIZES[size], dtype=dtype, sampler__steps=10)
    root = replace(root, "width", root.height)
    options = written(root, tmp_path)
    whole: dict[tuple[Residency, Residency], int] = {}
    for experts in EXPERTS:
        for encoders in ENCODERS:
            spec = replace(root, residency(experts, encoders))
            memory, held, phases = plan(spec).memory, Held(), dict[str, int]()
            with held:
                pipeline = load(spec, options)
                (found,) = pipeline.denoise([PROMPT], on_step=partial(_look, held, phases))
                phases["denoising"] = held.most_since()
                pipeline.residents.room.empty()
                held.most_since()
                for _ in frames_of(pipeline, found):
                    pass
                phases["decoding"] = held.most_since()
            del pipeline
            planned = {name: sum(parts.values()) for name, parts in memory.phases.items()}
            for name in ("denoising", "decoding"):
                assert phases[name] == pytest.approx(planned[name], rel=0.1), (experts, encoders, name)
            whole[experts, encoders] = max(phases.values())
            assert whole[experts, encoders] == pytest.approx(memory.total, rel=0.1)
    least, most = whole[Residency.LAYERWISE, Residency.SWAP], whole[Residency.RESIDENT, Residency.RESIDENT]
    assert least < most


def _look(held: Held, phases: dict[str, int], step: int, *_: Any) -> None:
    """Before the second step the encoders may still be there: that is encoding's."""
    if step == 0:
        phases["encoding"] = held.most_since()


def test_layerwise_takes_two_blocks_the_ends_and_the_largest_encoder(tmp_path: Path) -> None:
    root = spec_of(**SIZES["weights"])
    options, held = written(root, tmp_path), Held()
    with held:
        pipeline = load(replace(root, residency(Residency.LAYERWISE, Residency.SWAP)), options)
        pipeline.denoise([PROMPT])
    del pipeline
    values = {name: torch.Size(shape).numel() for name, shape in root.model.parameter_shapes().items()}
    block = 4 * sum(count for name, count in values.items() if name.startswith("blocks.0."))
    ends = 4 * sum(count for name, count in values.items() if not name.startswith("blocks."))
    text: Any = root.text_encoder
    inner, layers = text.num_heads * text.d_kv, text.num_layers
    layer = 4 * text.text_dim * inner + 32 * text.num_heads + 3 * text.text_dim * text.d_ff
    encoder = 4 * (layers * (layer + 2 * text.text_dim) + (text.vocab_size + 1) * text.text_dim)
    activations = 2 * 2**18  # A few tokens, twice for guidance; buffers of what is read.
    assert held.most <= max(2 * block + ends, encoder) + activations
    assert held.most < 0.5 * 2 * (BLOCKS * block + ends)


@pytest.mark.parametrize("guidance", [GuidanceMode.BATCHED, GuidanceMode.SEQUENTIAL])
def test_auto_takes_the_fastest_that_fits_and_says_why(
    guidance: GuidanceMode,
    spec: InferSpec,
    options: RunOptions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    auto = replace(spec, residency(Residency.AUTO, Residency.AUTO) | {"runtime.guidance": guidance})
    expected = latents(replace(spec, "runtime.guidance", guidance), options)
    totals = {
        (experts, encoders): plan(replace(auto, residency(experts, encoders))).memory.total
        for experts in EXPERTS
        for encoders in ENCODERS
    }
    for wanted in ((EXPERTS[0], ENCODERS[0]), (EXPERTS[1], ENCODERS[1])):
        monkeypatch.setattr("mm_infer.opening.free_bytes", lambda device, n=totals[wanted]: n)
        assert torch.allclose(latents(auto, options), expected, atol=1e-5)
        said = capsys.readouterr().out
        assert f"residency: experts {wanted[0].value}, encoders {wanted[1].value}; by mm plan the " in said
    monkeypatch.setattr("mm_infer.opening.free_bytes", lambda device: min(totals.values()) - 1)
    with pytest.raises(UserError, match=r"spec: mm plan has it need .* while .* are free on cpu"):
        load(auto, options)


def test_too_little_memory_is_told_with_what_would_fit(
    spec: InferSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = plan(spec).memory.total
    monkeypatch.setattr("mm_infer.opening.free_bytes", lambda device: needed - 1)
    with pytest.raises(UserError) as caught:
        load(spec, options)
    (problem,) = caught.value.problems
    assert problem.path == "spec"
    assert f"mm plan has it need {needed / 1e6:.1f} MB while decoding" in problem.message
    assert "what would fit: --spec." in problem.message and " MB are free on cpu" in problem.message


def test_weights_that_can_not_be_read_are_told_before_denoising(spec: InferSpec, options: RunOptions) -> None:
    broken = replace(spec, {"autoencoder.weights": ReleasedWeights(name="test/experts", subfolder="nowhere")})
    with pytest.raises(UserError, match=r"spec\.autoencoder\.weights"):
        load(replace(broken, residency(Residency.LAYERWISE, Residency.SWAP)), options)


def test_an_expert_that_is_past_has_left(spec: InferSpec, options: RunOptions) -> None:
    asked = replace(spec, residency(Residency.SWAP, Residency.SWAP) | {"sampler.steps": 4})
    pipeline, there = load(asked, options), list[tuple[Expert, set[Expert]]]()

    def look(step: int, sigma: float, expert: Expert, latents: Tensor) -> None:
        bytes_of = {
            name: sum(one.untyped_storage().nbytes() for one in network.parameters())
            for name, network in pipeline.networks.items()
        }
        there.append((expert, {name for name, size in bytes_of.items() if size}))

    pipeline.denoise([PROMPT], on_step=look)
    assert {expert for expert, _ in there} == {Expert.HIGH_NOISE, Expert.LOW_NOISE}
    assert all(found == {expert} for expert, found in there)
