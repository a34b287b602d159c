"""Running a stored run again, and comparing what two runs left behind, bit by bit."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.reproducing.difference import TENSORS, Difference, changed, shares
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
