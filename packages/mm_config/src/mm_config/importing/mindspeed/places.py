"""Texts that stand where a path belongs, and the folders of published releases."""

from __future__ import annotations

import re

from mm_config.families import wan21, wan22
from mm_config.specs.family import Family
from mm_config.specs.kinds import Weights
from mm_config.specs.weights import ReleasedWeights

FAMILIES = {
    "wan21.T2V_1_3B": wan21.T2V_1_3B,
    "wan21.T2V_14B": wan21.T2V_14B,
    "wan21.I2V_14B_480P": wan21.I2V_14B_480P,
    "wan21.I2V_14B_720P": wan21.I2V_14B_720P,
    "wan21.FLF2V_14B": wan21.FLF2V_14B,
    "wan22.T2V_A14B": wan22.T2V_A14B,
    "wan22.I2V_A14B": wan22.I2V_A14B,
    "wan22.TI2V_5B": wan22.TI2V_5B,
}
_PLACEHOLDER = re.compile(
    r"^$|\byour|\byou\b|x{3,}|<[^>]*>|\.\.\.|(?:^|/)path[/_ ]to\b|^/?path/?$|\$\(|\$\{|`|^\$", re.IGNORECASE
)


def is_placeholder(value: object) -> bool:
    """Whether a text is none that a file system has, but says what belongs there.

    Several words are one: a script's variable that holds spaces is split at them. So is a folder that only a
    run of the script would know.
    """
    return not isinstance(value, str) or _PLACEHOLDER.search(value) is not None


def release_of(family: Family) -> str:
    """The logical name of the release that a family's autoencoder comes with."""
    weights = getattr(family.autoencoder, "weights", None)
    return weights.name if isinstance(weights, ReleasedWeights) else ""


RELEASES = {name.rpartition("/")[2]: name for name in map(release_of, FAMILIES.values()) if name}
"""Releases by the name of the folder that they are downloaded into."""


def in_words(weights: Weights) -> str:
    """A release and its folder."""
    if isinstance(weights, ReleasedWeights):
        return f"{weights.name} {weights.subfolder}".rstrip()
    return "random weights"
