"""The loss of samples: how far the predicted velocity is from the true one.

Shapes: B samples, C latent channels, T H W latent frames, height and width, L text tokens, D text width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mm_config.specs import TrainSpec
from mm_data import Batch
from mm_models import device as devices
from mm_models import flow, has_loss, network_inputs, torch_dtype, without_frames
from mm_train.batches import latent_shape
from mm_train.noise import Draws, draw
from mm_train.sources import Samples
from mm_train.work import Training


def sample_losses(training: Training, batch: Batch, places: range) -> Tensor:
    """`[B]` float32: the weighted losses of the samples at some places of a rank's batch."""
    spec = training.spec
    positions = tuple(batch.positions[place] for place in places)
    draws = draw(spec, training.levels, batch.step, positions, latent_shape(spec, batch.shape))
    if training.dropout is not None:
        training.dropout.begin(spec.seed, batch.step, positions, training.device)
    samples = training.source.samples([batch.items[place] for place in places], draws.dropped)
    training.clock.mark("encode")
    return losses_of(spec, training.network, samples, draws) * devices.moved(draws.weight_B, training.device)


def losses_of(spec: TrainSpec, network: torch.nn.Module, samples: Samples, draws: Draws) -> Tensor:
    """`[B]` float32: mean squared error of the predicted velocity over all that is predicted.

    Args:
        spec: The training.
        network: Predicts the velocity.
        samples: Clean latents, captions and what else the network is given, on its device.
        draws: The noise and its levels.
    """
    x0_BCTHW = samples.latents_BCTHW
    device = x0_BCTHW.device
    noise_BCTHW = devices.moved(draws.noise_BCTHW, device)
    noised_BCTHW = flow.add_noise(x0_BCTHW, noise_BCTHW, devices.moved(draws.sigma_B.float(), device))
    # The timestep stays float32: in bfloat16 999 would be 1000.
    timestep_B = devices.moved(flow.timestep_of(draws.sigma_B, spec.diffusion), device)
    given = without_frames(samples.given, draws.from_text)
    latents, timestep, image_BIK = network_inputs(given, noised_BCTHW, timestep_B)
    compute = torch_dtype(spec.precision.compute)
    inputs = [latents.to(compute), timestep, samples.text_BLD.to(compute)]
    inputs += [] if image_BIK is None else [image_BIK.to(compute)]
    error_BCTHW = network(*inputs).float() - flow.velocity_target(x0_BCTHW, noise_BCTHW)
    if (predicted := has_loss(given, error_BCTHW)) is not None:
        squares = error_BCTHW.square() * predicted
        values = predicted.expand_as(squares).flatten(1).sum(1)
        return squares.flatten(1).sum(1) / values
    return error_BCTHW.square().flatten(1).mean(1)
