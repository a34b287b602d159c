"""Steps of a training, computed again from formulas with diffusers' network and torch's autograd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import mm_train
from experiments import tiny_high
from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs import AdamWSpec, Decay, LossWeighting, ReleasedWeights, TrainSpec, WanTransformerSpec
from mm_train import losses, training
from mm_train.sources import Samples
from tests.mm_models.parity import pair, relative_error

STEPS, WARMUP = 3, 2
OPTIM = AdamWSpec(lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, max_grad_norm=0.05)
SPEC: TrainSpec = replace(
    tiny_high.SPEC,
    {
        "model.hidden_size": 32,
        "model.num_attention_heads": 2,
        "model.ffn_dim": 64,
        "model.num_layers": 2,
        "model.patch_size": (1, 2, 2),
        "start_from": ReleasedWeights(name="test/start"),
        "diffusion.shift": 5.0,
        "diffusion.weighting": LossWeighting.BELL,
        "data.dataset.clips_per_caption": 1,
        "data.batch_size": 4,
        "data.num_frames": 5,
        "data.height": 32,
        "data.width": 32,
        "optim": OPTIM,
        "schedule.steps": STEPS,
        "schedule.warmup_steps": WARMUP,
        "schedule.decay": Decay.CONSTANT,
        "checkpoint.every_steps": 1,
        "checkpoint.keep_last": STEPS,
        "runtime.micro_batch_size": 2,
        "runtime.device": "cpu",
    },
)


@attrs.define
class Given:
    """What a training took from its data and its random numbers, sample by sample."""

    latents: list[Tensor] = attrs.field(factory=list)
    text: list[Tensor] = attrs.field(factory=list)
    noise: list[Tensor] = attrs.field(factory=list)
    sigma: list[float] = attrs.field(factory=list)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    """Filled while a training runs."""
    given = Given()
    source_of, draw = training.opened_source, losses.draw

    def recording_source(*arguments: Any) -> Any:
        source = source_of(*arguments)

        def collate(*loaded: Any) -> Samples:
            samples = source.collate(*loaded)
            given.latents += samples.latents_BCTHW.clone()
            given.text += samples.text_BLD.clone()
            return samples

        return attrs.evolve(source, collate=collate)

    def recording_draw(*arguments: Any) -> Any:
        draws = draw(*arguments)
        given.noise += draws.noise_BCTHW.clone()
        given.sigma += draws.sigma_B.tolist()
        return draws

    monkeypatch.setattr(training, "opened_source", recording_source)
    monkeypatch.setattr(losses, "draw", recording_draw)
    return given


def grid() -> tuple[np.ndarray, np.ndarray]:
    """MindSpeed-MM's `WanFlowMatchScheduler` at shift 5: noise levels, and weights of mean 1."""
    u = np.linspace(1.0, 0.0, 1001)[:-1]
    sigma = 5 * u / (1 + 4 * u)
    bell = np.exp(-2 * ((1000 * sigma - 500) / 1000) ** 2)
    bell -= bell.min()
    return sigma, bell * 1000 / bell.sum()


def loss_of(network: Any, given: Given, places: range) -> Tensor:
    """Mean over the batch of the weighted mean squared error of the velocity."""
    sigmas, weights = grid()
    losses: list[Tensor] = []
    for place in places:
        index = int(np.abs(sigmas - given.sigma[place]).argmin())
        assert (
            index < 417 and abs(sigmas[index] - given.sigma[place]) < 1e-12
        )  # The high-noise expert's part.
        sigma, x0, noise = float(sigmas[index]), given.latents[place][None], given.noise[place][None]
        noised = (1 - sigma) * x0 + sigma * noise
        timestep = torch.tensor([1000 * sigma])
        velocity = network(noised, timestep, given.text[place][None], return_dict=False)[0]
        losses.append(weights[index] * F.mse_loss(velocity, noise - x0))
    return torch.stack(losses).mean()


def adamw(
    weight: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], rate: float, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Loshchilov and Hutter 2019, algorithm 2, in float64; step counts from 1."""
    first = OPTIM.betas[0] * moments[0] + (1 - OPTIM.betas[0]) * gradient
    second = OPTIM.betas[1] * moments[1] + (1 - OPTIM.betas[1]) * gradient**2
    corrected = first / (1 - OPTIM.betas[0] ** step), second / (1 - OPTIM.betas[1] ** step)
    change = corrected[0] / (corrected[1].sqrt() + OPTIM.eps) + OPTIM.weight_decay * weight
    return weight - rate * change, first, second


def stored(folder: Path, group: str) -> dict[str, Tensor]:
    files = (load_file(file) for file in sorted((folder / group).glob("*.safetensors")))
    return {name: value.double() for file in files for name, value in file.items()}


def test_losses_gradients_and_updates_are_those_of_a_second_implementation(
    given: Given, tmp_path: Path
) -> None:
    assert isinstance(SPEC.model, WanTransformerSpec)
    theirs: Any = pair(SPEC.model)[0]
    theirs.save_pretrained(tmp_path / "start")
    locations = Locations((Location("test/start", tmp_path / "start", "the test"),))
    result = mm_train.train(SPEC, RunOptions(runs_dir=tmp_path / "runs", locations=locations))
    lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]

    names = [name for name, _ in theirs.named_parameters()]
    weights = {name: value.detach().double() for name, value in theirs.named_parameters()}
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in weights.items()}
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for step, line in enumerate(lines, 1):
        theirs.load_state_dict({name: value.float() for name, value in weights.items()})
        loss = loss_of(theirs, given, range(4 * (step - 1), 4 * step))
        gradients = [value.double() for value in torch.autograd.grad(loss, list(theirs.parameters()))]
        norm = torch.stack([value.square().sum() for value in gradients]).sum().sqrt().item()
        rate = OPTIM.lr * min(step / WARMUP, 1)
        assert line["loss"] == pytest.approx(loss.item(), rel=1e-6)
        assert line["grad_norm"] == pytest.approx(norm, rel=1e-5) and norm > OPTIM.max_grad_norm
        assert line["lr"] == pytest.approx(rate, rel=1e-12)

        folder = result.run_dir / "checkpoints" / f"step-{step:08}"
        model, optimizer = stored(folder, "model"), stored(folder, "optimizer")
        for name, gradient in zip(names, gradients, strict=True):
            before, (first, second) = weights[name], moments[name]
            moments[name] = optimizer[f"{name}.exp_avg"], optimizer[f"{name}.exp_avg_sq"]
            used = (moments[name][0] - OPTIM.betas[0] * first) / (1 - OPTIM.betas[0])
            assert relative_error(used, gradient * OPTIM.max_grad_norm / norm) <= 1e-5, name
            # The update divides a gradient by its own size, so it is that of the gradient which was used.
            weights[name], _, expected = adamw(before, used, (first, second), rate, step)
            assert relative_error(moments[name][1], expected) <= 1e-6, name
            assert relative_error(model[name], weights[name]) <= 2e-7, name
            assert relative_error(model[name] - before, weights[name] - before) <= 1e-3, name
            weights[name] = model[name]
