"""Files and folders that are whole or not there, also after a power cut, and the digests that prove it."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.durable.digests import sha256_of, size_and_sha256
    from mm_config.durable.leftovers import has_ended, remove_abandoned, siblings, stage_of, stages
    from mm_config.durable.reading import open_regular, outside, read_bytes, require_regular
    from mm_config.durable.writing import (
        discard,
        place_aside,
        place_folder,
        set_aside,
        staged_file,
        staged_folder,
        sync,
        synced_file,
    )
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
