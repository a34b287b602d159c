"""An Ascend NPU's environment: variables and their text forms, what is advised, versions that go together."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.npu.advice import ADVISED
    from mm_config.npu.exporting import check_environment, exported, variables_of
    from mm_config.npu.variables import refused
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
