"""Rules between fields: one function that every verb and every runner asks."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.rules.caching import why_computed
    from mm_config.rules.carried_out import CarriedOut, beyond
    from mm_config.rules.clips import frame_steps, size_problems
    from mm_config.rules.encoders import wan_autoencoder_problems
    from mm_config.rules.npu import group_timeout
    from mm_config.rules.npu_kernels import check_kernels
    from mm_config.rules.patterns import matches, matching
    from mm_config.rules.requested import first_step, spec_of
    from mm_config.rules.residency import fits_blocks, waiting_blocks
    from mm_config.rules.samples import generation_by, generation_of
    from mm_config.rules.sampling import guidance_by_step, idle_requests, idle_settings
    from mm_config.rules.sizes import area_size, best_size, cells
    from mm_config.rules.weights import continuing_problems
    from mm_config.rules.whole import check, problems, request_problems
    from mm_config.rules.wording import counted
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
