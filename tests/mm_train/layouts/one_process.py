"""The same step without anything of this: a loop over the clips, a plain network and torch's autograd.

Formulas: u = 1 - i / N, sigma = s u / (1 + (s - 1) u), x = (1 - sigma) x0 + sigma noise, and the network
predicts noise - x0; an adapted layer's weight is W + alpha / rank B A.
"""

from __future__ import annotations

import fnmatch
import math

import torch
from torch import Tensor
from torch.func import functional_call

import mm_models
from mm_config.specs import Conditioning, Expert, TrainSpec
from mm_models.ops.choosing import REFERENCE
from mm_models.seeding import generator
from mm_train.sources import Samples
from tests.mm_train.layouts.carrying_out import Gradients, Place, fill, value_of
from tests.mm_train.layouts.cells import STEP, Cell


def expected(place: Place, cell: Cell) -> Gradients:
    """What the cell's loss, norm and gradients have to be."""
    spec = cell.spec
    network = mm_models.build(spec.model, device="cpu", ops=REFERENCE)
    fill(network)
    weights = {name: value.detach() for name, value in network.named_parameters()}
    trained = _unfrozen(spec, weights) if spec.lora is None else _adapters(spec, weights)
    for value in trained.values():
        value.requires_grad_()
    source = place.source(spec)
    total = 0.0
    with place.stream(spec, source) as batches:
        batch = next(batches)
    for position, item in zip(batch.positions, batch.items, strict=True):
        used = weights if spec.lora is None else weights | _adapted(spec, weights, trained)
        dropped = _happens("caption", position, spec.data.caption_dropout)
        samples = source.collate([item], [dropped])
        loss = _loss(
            spec, lambda *inputs, used=used: functional_call(network, used, inputs), samples, position
        )
        (loss / spec.data.batch_size).backward()
        total += loss.item() / spec.data.batch_size
    gradients = {name: value.grad for name, value in trained.items()}
    norm = math.sqrt(sum(float(one.double().square().sum()) for one in gradients.values() if one is not None))
    scale = min(1.0, spec.optim.max_grad_norm / norm)
    clipped = {name: (one * scale).numpy() for name, one in gradients.items() if one is not None}
    return Gradients(total, norm, clipped)


def _loss(spec: TrainSpec, network: object, samples: Samples, position: int) -> Tensor:
    """Of one clip."""
    x0_1CTHW, given = samples.latents_BCTHW, samples.given
    noise = torch.empty(x0_1CTHW.shape[1:]).normal_(generator=_draws("noise", position))[None]
    sigma = _sigma(spec, position)
    timestep = torch.tensor([1000 * sigma])
    noised = (1 - sigma) * x0_1CTHW + sigma * noise
    target = noise - x0_1CTHW
    if spec.model.conditioning is Conditioning.FIRST_FRAME:
        assert given.beside_BCTHW is not None
        inputs = (torch.cat((noised, given.beside_BCTHW), 1), timestep, samples.text_BLD, given.image_BIK)
        return (network(*inputs) - target).square().mean()  # type: ignore[operator]
    if spec.model.conditioning is Conditioning.CLEAN_FIRST_FRAME:
        timestep = timestep.repeat(1, noised.shape[2])
        if not _happens("frame", position, spec.data.frame_dropout):
            assert given.clean_BC1HW is not None
            noised = torch.cat((given.clean_BC1HW, noised[:, :, 1:]), 2)
            timestep[:, 0] = 0
            error = network(noised, timestep, samples.text_BLD) - target  # type: ignore[operator]
            return error[:, :, 1:].square().mean()
    return (network(noised, timestep, samples.text_BLD) - target).square().mean()  # type: ignore[operator]


def _sigma(spec: TrainSpec, position: int) -> float:
    """Of the levels of the expert, each is as likely as another; the high-noise one's are from 0.875 on."""
    shift = spec.diffusion.shift
    shares = [1 - index / 1000 for index in range(1000)]
    sigmas = [shift * u / (1 + (shift - 1) * u) for u in shares]
    high, low = [one for one in sigmas if one >= 0.875], [one for one in sigmas if one < 0.875]
    own = {Expert.SINGLE: sigmas, Expert.HIGH_NOISE: high, Expert.LOW_NOISE: low}[spec.expert]
    return own[int(torch.randint(len(own), (), generator=_draws("timestep", position)))]


def _draws(what: str, position: int) -> torch.Generator:
    """All that is random belongs to a place in the global batch."""
    return generator(0, STEP, position, what)


def _happens(what: str, position: int, share: float) -> bool:
    return bool(torch.rand((), generator=_draws(what, position)) < share)


def _unfrozen(spec: TrainSpec, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """All that is trained without adapters."""
    frozen = {name for name in weights for pattern in spec.frozen if fnmatch.fnmatch(name, pattern)}
    return {name: value for name, value in weights.items() if name not in frozen}


def _adapters(spec: TrainSpec, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Both matrices of each adapted layer, by their names in a network."""
    assert spec.lora is not None
    rank, found = spec.lora.rank, {}
    for name, weight in weights.items():
        layer = name.removesuffix(".weight")
        if layer != name and any(fnmatch.fnmatch(layer, pattern) for pattern in spec.lora.targets):
            for part, shape in (("lora_A", (rank, weight.shape[1])), ("lora_B", (weight.shape[0], rank))):
                found[f"{layer}.{part}.weight"] = value_of(f"{layer}.{part}.weight", shape)
    return found


def _adapted(spec: TrainSpec, weights: dict[str, Tensor], adapters: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the products of their adapters added."""
    assert spec.lora is not None
    scale = spec.lora.alpha / spec.lora.rank
    layers = [name.removesuffix(".lora_A.weight") for name in adapters if name.endswith(".lora_A.weight")]
    return {
        f"{layer}.weight": weights[f"{layer}.weight"]
        + scale * adapters[f"{layer}.lora_B.weight"] @ adapters[f"{layer}.lora_A.weight"]
        for layer in layers
    }
