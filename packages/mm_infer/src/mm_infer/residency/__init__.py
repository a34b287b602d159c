"""Where experts and encoders are while they don't work: on the device, in the host's memory, or in files."""

from mm_infer.residency.choosing import settled
from mm_infer.residency.experts import FillSome, Waiting
from mm_infer.residency.placing import (
    ALWAYS_THERE,
    Residents,
    place_by_blocks,
    place_encoder,
    place_experts,
)

__all__ = [
    "ALWAYS_THERE",
    "FillSome",
    "Residents",
    "Waiting",
    "place_by_blocks",
    "place_encoder",
    "place_experts",
    "settled",
]
