"""Low-rank adapters: read and written in others' key styles, merged into networks, or kept beside them."""

from typing import TYPE_CHECKING

from mm_config.schema import lazy

if TYPE_CHECKING:
    from mm_models.lora.adapter import HIGH_NOISE, LOW_NOISE, Adapter, Addition, StoredAdapters
    from mm_models.lora.dropout import Dropout
    from mm_models.lora.files import read_adapters
    from mm_models.lora.fitting import changed_shapes, fit_problems
    from mm_models.lora.merging import add_change, merge, unmerge
    from mm_models.lora.training import (
        adapter_parameters,
        attach_trainable,
        fill_adapters,
        initialize_adapters,
        require_same,
        trained_adapter,
    )
    from mm_models.lora.unmerged import Attached, attach, stands_beside
    from mm_models.lora.writing import save_adapters
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
