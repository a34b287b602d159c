"""Pages for a browser: files that open without a network, and servers; neither runs a text as code."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.pages.charts import Bin, bars, bins_of, curves, histogram, tuning
    from mm_config.pages.document import facts, page, section, served_page, side_by_side
    from mm_config.pages.markup import Child, Html, joined, number, tag
    from mm_config.pages.serving import (
        LOOPBACK,
        Asset,
        asset,
        asset_routes,
        check_web,
        file_below,
        file_response,
        guarded,
        kit_scripts,
        kit_styles,
        serve,
    )
    from mm_config.pages.tables import Cell, Column, table
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
