"""Trainings of adapters: what they learn is PEFT's, what they leave behind is the adapters alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import mm_infer
import mm_train
from mm_config import replace
from mm_config.families.tiny import TINY
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs import (
    AdamWSpec,
    AppliedLoraSpec,
    GenerationRequest,
    InferSpec,
    RandomWeights,
    ReleasedWeights,
    SamplesSpec,
    TrainedBy,
)
from mm_config.specs.train import TrainSpec
from mm_config.specs.wan import WanTransformerSpec
from mm_models.lora.training import base_state
from mm_train import losses
from tests.mm_models.parity import pair
from tests.mm_train.adapted import BASE, adapter_file, small_adapters
from tests.mm_train.conftest import SMALL


@attrs.define
class Seen:
    """What the losses of a training were computed with."""

    network: Any = None
    calls: list[tuple[Tensor, Tensor, Tensor, Tensor]] = attrs.field(factory=list)
    """Clean latents, texts, noise and noise levels, of each micro-batch."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Looks on while losses are computed."""
    found, compute = Seen(), losses.losses_of

    def watched(spec: TrainSpec, network: nn.Module, samples: Any, draws: Any) -> Tensor:
        found.network = network
        found.calls.append((samples.latents_BCTHW, samples.text_BLD, draws.noise_BCTHW, draws.sigma_B))
        return compute(spec, network, samples, draws)

    monkeypatch.setattr(losses, "losses_of", watched)
    return found


@pytest.fixture
def adapted(small: TrainSpec) -> TrainSpec:
    return small_adapters(small)


def base_weights(options: RunOptions) -> dict[str, Tensor]:
    trained = mm_train.train(BASE, asked(options))
    return load_file(next((trained.checkpoint / "model").glob("*.safetensors")))


def test_two_steps_are_those_of_peft_on_diffusers_network(
    adapted: TrainSpec, options: RunOptions, seen: Seen
) -> None:
    base = base_weights(options)
    seen.calls.clear()
    result = mm_train.train(adapted, options)
    calls = list(seen.calls)
    for name, value in base_state(seen.network).items():
        assert torch.equal(value, base[name]), name

    assert isinstance(adapted.model, WanTransformerSpec)
    theirs: Any = pair(adapted.model)[0]
    theirs.load_state_dict(base)
    targets = r"blocks\.\d+\.(attn[12]\.to_[qv]|ffn\.net\.2)"
    theirs.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=targets))
    trained = {
        name.replace(".default", ""): parameter
        for name, parameter in theirs.named_parameters()
        if ".lora_" in name
    }
    first = first_values(adapted, options)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(first[name])
    assert [name for name, one in theirs.named_parameters() if one.requires_grad and "lora" not in name] == []
    optim = adapted.optim
    assert isinstance(optim, AdamWSpec)
    optimizer = torch.optim.AdamW(
        trained.values(), lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay
    )
    for step, (clean, text, noise, sigma) in enumerate(calls):
        level = sigma.view(-1, 1, 1, 1, 1)
        noised = ((1 - level) * clean + level * noise).float()
        (velocity,) = theirs(noised, (1000 * sigma).float(), text, return_dict=False)
        (velocity - (noise - clean)).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), optim.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = optim.lr * (1.0 if step == 0 else 0.0)  # Cosine's last of two.
        optimizer.step()
        optimizer.zero_grad()
    ours = adapter_file(result)
    assert {f"transformer.{name}" for name in trained} == ours.keys()
    for name, parameter in trained.items():
        torch.testing.assert_close(ours[f"transformer.{name}"], parameter.detach(), rtol=1e-5, atol=1e-6)

    fresh: Any = pair(adapted.model)[0]
    fresh.load_state_dict(base)
    state, metadata = WanLoraLoaderMixin.lora_state_dict(
        str(result.adapter), return_lora_metadata=True, local_files_only=True
    )
    WanLoraLoaderMixin.load_lora_into_transformer(state, fresh, metadata=metadata)
    clean, text, _, sigma = calls[0]
    with torch.no_grad():
        found, expected = (one(clean, sigma.float(), text, return_dict=False)[0] for one in (fresh, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def first_values(adapted: TrainSpec, options: RunOptions) -> dict[str, Tensor]:
    """The adapters' values before the first update: those of a training at a rate of 0."""
    still = replace(adapted, {"name": f"{adapted.name}_still", "optim.lr": 1e-30})
    values = adapter_file(mm_train.train(still, options))
    return {name.removeprefix("transformer."): value for name, value in values.items()}


def test_before_the_first_update_it_is_the_network_bit_for_bit(
    adapted: TrainSpec, options: RunOptions
) -> None:
    plain = replace(adapted, {"lora": None, "name": f"{adapted.name}_plain"})
    found = [first_loss(spec, options) for spec in (plain, adapted)]
    assert found[0] == found[1]


def first_loss(spec: TrainSpec, options: RunOptions) -> float:
    steps = mm_train.steps(spec, options)
    loss = next(steps).loss
    steps.close()
    return loss


def test_generation_applies_what_a_training_made(
    adapted: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    named = attrs.evolve(options, locations=Locations((Location("merged", tmp_path, "test"),)))
    spec = replace(
        TINY.infer(
            high_noise=adapted.start_from,
            low_noise=RandomWeights(seed=1),
            loras=(AppliedLoraSpec(high_noise=TrainedBy(spec=adapted), strength=50.0),),
            num_frames=17,
            height=64,
            width=64,
            fps=8,
            samples=SamplesSpec(prompts=("a red circle moving right",), seeds=(5,)),
        ),
        {name: value for name, value in SMALL.items() if name.startswith("model.")}
        | {"sampler.steps": 3, "runtime.device": "cpu", "runtime.build_missing": True},
    )
    with_adapter = latents_of(spec, options)
    weights, adapter = base_weights(options), adapter_file(mm_train.train(adapted, asked(options)))
    for name in [name for name in adapter if "lora_A" in name]:
        up, down = adapter[name.replace("lora_A", "lora_B")], adapter[name]
        own = name.removeprefix("transformer.").replace("lora_A.", "")
        weights[own] = weights[own] + 50.0 * (6 / 3) * up @ down
    save_file(weights, tmp_path / "diffusion_pytorch_model.safetensors")
    merged = replace(spec, {"loras": (), "high_noise": ReleasedWeights(name="merged")})
    torch.testing.assert_close(with_adapter, latents_of(merged, named), rtol=1e-5, atol=1e-5)
    plain = latents_of(replace(spec, "loras", ()), options)
    assert (with_adapter - plain).abs().max() > 1e-3


def latents_of(spec: InferSpec, options: RunOptions) -> Tensor:
    request = GenerationRequest(prompt="a red circle moving right", seed=5)
    return mm_infer.load(spec, options=options).denoise([request])


def asked(options: RunOptions) -> RunOptions:
    return attrs.evolve(options, if_needed=True)
