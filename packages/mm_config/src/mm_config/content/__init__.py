"""What went into a result: digests of data, weights and files, and the identity that follows from them."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.content.inputs import Input, file_input, made_of, parts_input, pinned
    from mm_config.content.numerics import NUMERICS
    from mm_config.content.parts import Part, differences, digest_of_parts, printable
    from mm_config.content.remembered import sha256_of_files
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
