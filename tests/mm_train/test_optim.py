"""The learning rate's formulas, and the optimizer's state under the names of parameters."""

import math

import pytest
import torch
from torch import nn

from mm_config.specs.optim import AdamWSpec, Decay, ScheduleSpec
from mm_train.optim import build_optimizer, learning_rate, make_moments, named_moments


def rates(schedule: ScheduleSpec, peak: float = 1.0) -> list[float]:
    return [learning_rate(step, peak, schedule) for step in range(schedule.steps)]


def test_warm_up_reaches_the_peak_with_its_last_step_and_stays() -> None:
    assert rates(ScheduleSpec(steps=6, warmup_steps=4), peak=2.0) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_linear_decay_is_a_line_to_the_final_ratio() -> None:
    schedule = ScheduleSpec(steps=7, warmup_steps=2, decay=Decay.LINEAR, final_ratio=0.2)
    assert rates(schedule) == pytest.approx([0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_cosine_decay_follows_half_a_period() -> None:
    schedule = ScheduleSpec(steps=11, decay=Decay.COSINE, final_ratio=0.1)
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 10)) / 2 for step in range(11)]
    assert rates(schedule) == pytest.approx(expected)


def test_wsd_stays_at_the_peak_and_falls_over_its_last_steps() -> None:
    schedule = ScheduleSpec(steps=8, warmup_steps=2, decay=Decay.WSD, decay_steps=4, final_ratio=0.2)
    assert rates(schedule) == pytest.approx([0.5, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_a_warm_up_rises_from_its_ratio() -> None:
    assert rates(ScheduleSpec(steps=5, warmup_steps=4, warmup_ratio=0.2)) == pytest.approx(
        [0.4, 0.6, 0.8, 1.0, 1.0]
    )


@pytest.mark.parametrize("decay", list(Decay))
def test_schedules_of_one_step_and_of_warm_up_alone_have_a_rate(decay: Decay) -> None:
    decay_steps = 1 if decay is Decay.WSD else None
    warming = ScheduleSpec(steps=3, warmup_steps=3, decay=decay, decay_steps=decay_steps)
    assert rates(warming) == pytest.approx([1 / 3, 2 / 3, 1.0])
    single = ScheduleSpec(steps=1, decay=decay, decay_steps=decay_steps, final_ratio=0.5)
    assert rates(single)[0] in (0.5, 1.0)


def test_an_optimizer_with_copied_moments_goes_on_like_the_first() -> None:
    device = torch.device("cpu")
    network, copy = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = build_optimizer(network, AdamWSpec(lr=0.1), device)
    gradients = [[torch.randn_like(parameter) for parameter in network.parameters()] for _ in range(4)]

    def update(module: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        for parameter, gradient in zip(module.parameters(), gradients[step], strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()

    for step in range(3):
        update(network, optimizer, step)
    copy.load_state_dict(network.state_dict())
    continued = build_optimizer(copy, AdamWSpec(lr=0.1), device)
    make_moments(copy, continued, step=3)
    for name, moment in named_moments(copy, continued).items():
        moment.copy_(named_moments(network, optimizer)[name])
    update(network, optimizer, 3)
    update(copy, continued, 3)

    assert set(named_moments(network, optimizer)) == {
        "weight.exp_avg",
        "weight.exp_avg_sq",
        "bias.exp_avg",
        "bias.exp_avg_sq",
    }
    for first, second in zip(network.parameters(), copy.parameters(), strict=True):
        assert torch.equal(first, second)


def test_moments_that_are_there_are_counted_and_left_as_they_are() -> None:
    network = nn.Linear(4, 3)
    optimizer = build_optimizer(network, AdamWSpec(), torch.device("cpu"))
    network(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    before = {name: moment.clone() for name, moment in named_moments(network, optimizer).items()}
    make_moments(network, optimizer, step=9)
    for name, moment in named_moments(network, optimizer).items():
        assert torch.equal(moment, before[name]), name
    assert {int(kept["step"]) for kept in optimizer.state.values()} == {9}
