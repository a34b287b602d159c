"""Random numbers of training: keyed by position, within the expert's range, independent of the split."""

import torch

from mm_config import replace
from mm_config.specs.diffusion import Expert, LossWeighting
from mm_config.specs.train import TrainSpec
from mm_models import flow
from mm_train.noise import draw, noise_levels

SHAPE = (12, 5, 8, 8)


def test_draws_do_not_depend_on_how_a_batch_is_split(small: TrainSpec) -> None:
    levels = noise_levels(small)
    whole = draw(small, levels, 7, tuple(range(8)), SHAPE)
    parts = [draw(small, levels, 7, positions, SHAPE) for positions in ((0, 1, 2), (3, 4, 5, 6, 7))]
    assert torch.equal(whole.noise_BCTHW, torch.cat([part.noise_BCTHW for part in parts]))
    assert torch.equal(whole.sigma_B, torch.cat([part.sigma_B for part in parts]))
    assert torch.equal(whole.weight_B, torch.cat([part.weight_B for part in parts]))
    assert whole.dropped == parts[0].dropped + parts[1].dropped


def test_draws_differ_by_seed_step_and_position(small: TrainSpec) -> None:
    levels = noise_levels(small)
    first = draw(small, levels, 0, (0, 1), SHAPE).noise_BCTHW
    later = draw(small, levels, 1, (0, 1), SHAPE).noise_BCTHW
    reseeded = draw(replace(small, "seed", 1), levels, 0, (0, 1), SHAPE).noise_BCTHW
    samples = torch.stack([*first, *later, *reseeded]).flatten(1)
    assert torch.corrcoef(samples).fill_diagonal_(0).abs().max() < 0.06
    assert abs(float(samples.mean())) < 0.02
    assert abs(float(samples.std()) - 1) < 0.02


def test_each_expert_is_trained_on_its_side_of_the_boundary(small: TrainSpec) -> None:
    boundary = small.diffusion.boundary
    assert boundary is not None
    positions = tuple(range(400))
    high = draw(small, noise_levels(small), 0, positions, (1, 1, 1, 1)).sigma_B
    low_spec = replace(small, "expert", Expert.LOW_NOISE)
    low = draw(low_spec, noise_levels(low_spec), 0, positions, (1, 1, 1, 1)).sigma_B
    assert high.min() >= boundary > low.max()
    indices = torch.searchsorted(-flow.training_sigmas(small.diffusion), -high).double()
    expected = (len(flow.expert_range(small.diffusion, Expert.HIGH_NOISE)) - 1) / 2
    assert abs(float(indices.mean()) - expected) < 0.1 * expected


def test_weights_are_those_of_the_drawn_levels(small: TrainSpec) -> None:
    spec = replace(small, "diffusion.weighting", LossWeighting.BELL)
    draws = draw(spec, noise_levels(spec), 0, tuple(range(20)), (1, 1, 1, 1))
    table = dict(
        zip(
            flow.training_sigmas(spec.diffusion).tolist(),
            flow.loss_weights(spec.diffusion).float().tolist(),
            strict=True,
        )
    )
    assert draws.weight_B.tolist() == [table[sigma] for sigma in draws.sigma_B.tolist()]


def test_captions_are_dropped_as_often_as_asked(small: TrainSpec) -> None:
    levels = noise_levels(small)
    for share in (0.0, 0.25):
        spec = replace(small, "data.caption_dropout", share)
        dropped = draw(spec, levels, 3, tuple(range(1000)), (1, 1, 1, 1)).dropped
        assert abs(sum(dropped) / 1000 - share) < 0.05 * (share > 0) + 1e-9
