"""Points of the index axis there, and noise levels here."""

from __future__ import annotations

from mm_config.specs.diffusion import FlowMatchingSpec

NEAR = 1e-3
"""A boundary this near to the family's is the family's."""


def level(grid: FlowMatchingSpec, index: float) -> float:
    """The noise level at an index of the training grid, which may lie between two points."""
    gaps = grid.num_train_timesteps if grid.drop_last else max(grid.num_train_timesteps - 1, 1)
    u = grid.sigma_max - (grid.sigma_max - grid.sigma_min) * index / gaps
    return grid.shift * u / (1 + (grid.shift - 1) * u)


def points(grid: FlowMatchingSpec, fraction: float) -> int:
    """The points before a fraction of the index axis, cut off as MindSpeed-MM does."""
    return int(fraction * grid.num_train_timesteps)


def points_above(grid: FlowMatchingSpec, boundary: float) -> int:
    """The points of the grid at and above a noise level."""
    low, high = 0, grid.num_train_timesteps
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if level(grid, middle) >= boundary else (low, middle)
    return low


def between(grid: FlowMatchingSpec, count: int) -> float:
    """A boundary that leaves the first `count` points to the high-noise expert: halfway to the next one."""
    exact = level(grid, count - 0.5)
    for digits in range(4, 17):
        rounded = float(f"{exact:.{digits}g}")
        if 0 < rounded < 1 and points_above(grid, rounded) == count:
            return rounded
    return exact
