"""How specs are made and compared: fields, types, ranges, evolution, identity, differences, errors."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.schema.decorator import spec, tag_of
    from mm_config.schema.diff import for_person
    from mm_config.schema.docstrings import shown_by_help
    from mm_config.schema.errors import (
        Failure,
        Problem,
        SpecError,
        UserError,
        concerning,
        gathering,
        prefixed,
    )
    from mm_config.schema.evolve import get, leaves
    from mm_config.schema.faces import lazy
    from mm_config.schema.fields import EXECUTION, LOCATION, SEMANTIC, field
    from mm_config.schema.identity import canonical, canonical_bytes, exact_hash, spec_hash
    from mm_config.schema.installed import all_registered, loaded, registered, registered_names
    from mm_config.schema.root import RootSpec
    from mm_config.schema.suggestions import did_you_mean
    from mm_config.schema.types import expect, expect_function, is_spec
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
