"""What is done with decoded frames before they are written."""

from __future__ import annotations

from mm_config.schema.decorator import spec
from mm_config.schema.fields import field
from mm_config.specs.kinds import StageSpec


@spec("lanczos-upscale")
class LanczosUpscaleSpec(StageSpec):
    """Makes frames larger by Lanczos resampling, which adds no detail."""

    factor: int = field(default=2, ge=2, le=8)
    """How many times as high and as wide."""

    def size_after(self, num_frames: int, height: int, width: int, fps: int) -> tuple[int, int, int, int]:
        """Frames, height, width and frame rate of what comes out."""
        return num_frames, height * self.factor, width * self.factor, fps
