"""Flow matching: noise levels in training, and the sampler that walks them back."""

from __future__ import annotations

import enum

from mm_config.schema.decorator import spec
from mm_config.schema.fields import field


class Expert(enum.Enum):
    """Which part of the noise range a network is for."""

    HIGH_NOISE = "high_noise"
    LOW_NOISE = "low_noise"
    SINGLE = "single"


class LossWeighting(enum.Enum):
    """How the loss depends on the noise level."""

    NONE = "none"
    """Every noise level counts the same."""
    BELL = "bell"
    """MindSpeed-MM's bell around the middle of the schedule, mean 1 over the whole schedule."""


class TimestepSampling(enum.Enum):
    """How a point of the training grid is drawn."""

    UNIFORM = "uniform"
    """Every point of the expert's range is equally likely."""
    LOGIT_NORMAL = "logit_normal"
    """The level before the shift is the sigmoid of a normal number (Stable Diffusion 3)."""
    MODE = "mode"
    """Stable Diffusion 3's mode sampling with heavy tails, of the level before the shift."""


class TimestepScope(enum.Enum):
    """What shares one noise level."""

    SAMPLE = "sample"
    """Nothing: each clip has its own."""
    MICRO_BATCH = "micro_batch"
    """All clips of a forward pass on one rank; `clips_per_level` says the same of any number of ranks."""


@spec("flow-matching")
class FlowMatchingSpec:
    """Flow matching on a shifted grid: x_t = (1 - sigma) x0 + sigma noise, target noise - x0."""

    shift: float = field(default=5.0, ge=0.01)
    """Shift s of the training grid: sigma = s u / (1 + (s - 1) u) for u uniform in (0, 1]."""
    boundary: float | None = field(default=None, gt=0, lt=1, unit="sigma")
    """Noise level at and above which the high-noise expert works; None for a single network."""
    num_train_timesteps: int = field(default=1000, ge=1, le=1_000_000)
    """Points of the training grid; a timestep is sigma times this number."""
    weighting: LossWeighting = LossWeighting.NONE
    """How the loss depends on the noise level."""
    sigma_max: float = field(default=1.0, neutral=1.0, gt=0, le=1, unit="sigma")
    """Most noise of the grid, before the shift."""
    sigma_min: float = field(default=0.0, neutral=0.0, ge=0, lt=1, unit="sigma")
    """Least noise of the grid, before the shift."""
    drop_last: bool = field(default=True, neutral=True)
    """Whether the grid is one point longer and its last point, sigma_min itself, is never drawn."""
    sampling: TimestepSampling = field(default=TimestepSampling.UNIFORM, neutral=TimestepSampling.UNIFORM)
    """How a point of the grid is drawn."""
    logit_mean: float = field(default=0.0, neutral=0.0)
    """Mean of the normal number of logit_normal sampling; above 0 there is more noise."""
    logit_std: float = field(default=1.0, neutral=1.0, gt=0)
    """Standard deviation of the normal number of logit_normal sampling."""
    mode_scale: float = field(default=1.29, neutral=1.29, ge=-1, le=1.75)
    """Weight of the middle in mode sampling; below 0 of the ends."""
    timesteps_per: TimestepScope = field(default=TimestepScope.SAMPLE, neutral=TimestepScope.SAMPLE)
    """What shares one noise level."""
    clips_per_level: int | None = field(default=None, neutral=None, ge=1, le=1_000_000, unit="clips")
    """Neighbouring clips of the global batch that share one noise level; None gives each its own."""


class Solver(enum.Enum):
    """The integrator of the denoising loop."""

    UNIPC = "unipc"
    """UniPC, order 2, bh2: Wan's official sampler."""
    EULER = "euler"
    """First-order Euler steps."""
    DPMPP_2M = "dpmpp_2m"
    """DPM-Solver++ of order 2, the other official sampler."""


class SigmaTable(enum.Enum):
    """The noise levels that a sampler visits, before the shift; timesteps have fractions where not said."""

    WAN_OFFICIAL = "wan_official"
    """linspace(0.999, 0, steps + 1) without the last: Wan's own UniPC; whole timesteps."""
    DIFFUSERS = "diffusers"
    """linspace(1, 0.001, steps + 1) without the last: diffusers' UniPC from 0.37 on; whole timesteps."""
    FULL_RANGE = "full_range"
    """linspace(1, 0, steps + 1) without the last: Euler of DiffSynth and TeleFuser."""
    LISTED = "listed"
    """The timesteps that the sampler lists, as distilled networks want them."""
    DIFFUSERS_EULER = "diffusers_euler"
    """linspace(1, 0.001 shifted, steps): diffusers' FlowMatchEulerDiscreteScheduler."""
    WAN_OFFICIAL_DPMPP = "wan_official_dpmpp"
    """linspace(1, 0, steps + 1) without the last: Wan's own DPM++; whole timesteps."""


class NoiseDraw(enum.Enum):
    """How a seed becomes the noise that a video starts from; drawn on the CPU, whatever the device."""

    KEYED = "keyed"
    """By a generator of its own, keyed by the seed and by what the numbers are for."""
    DIFFUSERS = "diffusers"
    """As diffusers draws it for one video with `torch.Generator("cpu").manual_seed(seed)`."""


NUM_TRAIN_TIMESTEPS = 1000
"""A timestep is a noise level times this number, in every published Wan."""
_ENDS = {
    # Wan's own scheduler holds 0.999 in float32, which decides at shift 1 what its timesteps are cut to.
    SigmaTable.WAN_OFFICIAL: (0.9990000128746033, 0.0),
    SigmaTable.DIFFUSERS: (1.0, 0.001),
    SigmaTable.FULL_RANGE: (1.0, 0.0),
    SigmaTable.WAN_OFFICIAL_DPMPP: (1.0, 0.0),
}
_WHOLE_TIMESTEPS = (SigmaTable.WAN_OFFICIAL, SigmaTable.DIFFUSERS, SigmaTable.WAN_OFFICIAL_DPMPP)
"""Their schedulers keep int64; those of the other tables keep floating point."""
_MOST_NOISE = 1 - 1e-6


@spec("sampler")
class SamplerSpec:
    """How noise becomes latents."""

    steps: int = field(default=40, ge=1, le=100_000)
    """Denoising steps."""
    shift: float = field(default=12.0, ge=0.01)
    """Shift of the sampling grid; never taken from a checkpoint's scheduler file."""
    solver: Solver = Solver.UNIPC
    """The integrator."""
    sigmas: SigmaTable = SigmaTable.WAN_OFFICIAL
    """The table of noise levels."""
    guidance_high_noise: float = field(default=4.0, ge=1)
    """Classifier-free guidance of the high-noise expert; 1 turns it off."""
    guidance_low_noise: float = field(default=3.0, ge=1)
    """Classifier-free guidance of the low-noise expert; 1 turns it off."""
    timesteps: tuple[int, ...] = field(default=(), neutral=(), ge=1, le=1000)
    """With `sigmas = listed`: the timesteps that are visited, before the shift, most noise first."""
    noise: NoiseDraw = field(default=NoiseDraw.KEYED, neutral=NoiseDraw.KEYED)
    """How a seed becomes the noise that a video starts from."""
    guidance_interval: tuple[float, float] = field(default=(0.0, 1.0), neutral=(0.0, 1.0), ge=0, le=1)
    """Least and most noise level of the steps that are guided; others see the prompt alone."""
    guidance_rescale: float = field(default=0.0, neutral=0.0, ge=0, le=1)
    """How far guidance keeps the deviation of the prompt's own prediction (arXiv 2305.08891); 0 does not."""

    def noise_levels(self) -> list[float]:
        """The noise levels that are visited, `steps` of them, falling; after the last one comes 0.

        `sigma' = s sigma / (1 + (s - 1) sigma)` of the table's levels, in the order of operations of numpy's
        linspace, since a timestep that is cut shows the last digit. `DIFFUSERS` begins at 1 - 1e-6, so that
        log(1 - sigma) is finite, as does every other table with UniPC.
        """
        shifted = [self.shift * one / (1 + (self.shift - 1) * one) for one in self._unshifted()]
        if self.solver is Solver.UNIPC or self.sigmas is SigmaTable.DIFFUSERS:
            return [min(one, _MOST_NOISE) for one in shifted]
        return shifted

    def told_timesteps(self) -> list[float]:
        """What the network is told at each step: 1000 sigma, cut where the table's source cuts it."""
        told = [NUM_TRAIN_TIMESTEPS * one for one in self.noise_levels()]
        return [float(int(one)) for one in told] if self.sigmas in _WHOLE_TIMESTEPS else told

    def guidance_at(self, level: float, expert: Expert) -> float:
        """The guidance of a step: 1, which is none, where its noise level is outside of the interval.

        Args:
            level: The noise level that the step begins at.
            expert: Which one works; a single network has the high-noise one's guidance.
        """
        least, most = self.guidance_interval
        if not least <= level <= most:
            return 1.0
        return self.guidance_low_noise if expert is Expert.LOW_NOISE else self.guidance_high_noise

    def _unshifted(self) -> list[float]:
        if self.sigmas is SigmaTable.LISTED:
            return [one / NUM_TRAIN_TIMESTEPS for one in self.timesteps]
        if self.sigmas is SigmaTable.DIFFUSERS_EULER:
            # The scheduler takes its last level from a table that is shifted already, and shifts once more.
            first, last = 1.0, self.shift * 0.001 / (1 + (self.shift - 1) * 0.001)
            gaps = max(self.steps - 1, 1)
        else:
            (first, last), gaps = _ENDS[self.sigmas], self.steps
        return [first + index * ((last - first) / gaps) for index in range(self.steps)]
