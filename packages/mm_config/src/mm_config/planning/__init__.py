"""What a spec will take, counted from it alone: FLOPs, memory, traffic, times, and what would fit."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.planning.costs import Clip
    from mm_config.planning.denoising import infer_work
    from mm_config.planning.devices import DEVICES
    from mm_config.planning.inference import infer_memory
    from mm_config.planning.parameters import quantized_layers
    from mm_config.planning.residency import (
        chosen_residency,
        fastest_residency,
        gigabytes,
        is_automatic,
        lacking,
    )
    from mm_config.planning.training import train_work
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
