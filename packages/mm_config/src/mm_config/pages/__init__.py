"""Pages for a browser: one HTML file each, that opens without a network and runs no text as code."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.pages.charts import Bin, bars, bins_of, curves, histogram, tuning
    from mm_config.pages.document import facts, page, section, side_by_side
    from mm_config.pages.markup import Child, Html, joined, number, tag
    from mm_config.pages.tables import Cell, Column, table
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
