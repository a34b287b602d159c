"""Holds what the ranks of a cell have against one process."""

from __future__ import annotations

import numpy as np

from tests.mm_train.layouts.carrying_out import Gradients

TOLERANCE = 1e-5
"""Of a loss and a norm, and of a gradient's largest value."""


def differences(found: list[Gradients], expected: Gradients) -> list[str]:
    """What differs, a line each: a rank's loss or norm, a parameter without a gradient, or another one."""
    lines = []
    for rank, one in enumerate(found):
        for name in ("loss", "norm"):
            ours, theirs = getattr(one, name), getattr(expected, name)
            if not abs(ours - theirs) <= TOLERANCE * theirs:
                lines.append(f"{name} on rank {rank}: {ours}, in one process {theirs}")
    gradients = found[0].clipped
    if lacking := sorted(gradients.keys() ^ expected.clipped.keys()):
        lines.append(f"gradients on one side alone: {', '.join(lacking)}")
    for name in gradients.keys() & expected.clipped.keys():
        most = float(np.abs(expected.clipped[name]).max())
        assert most > 0, f"the gradient of {name} is zero in one process, so it shows nothing"
        off = float(np.abs(gradients[name] - expected.clipped[name]).max()) / most
        if not off <= TOLERANCE:
            lines.append(f"gradient of {name}: off by {off:.1e} of its largest value")
    return lines
