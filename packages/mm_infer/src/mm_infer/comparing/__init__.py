"""Two generations on the same requests: how much faster one is, and what that costs in exactness."""

from typing import TYPE_CHECKING

from mm_config.schema import lazy

if TYPE_CHECKING:
    from mm_infer.comparing.both import Compared, compare
    from mm_infer.comparing.calibrating import Changes, steps_to_skip
    from mm_infer.comparing.measures import psnr, relative_error, ssim
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
