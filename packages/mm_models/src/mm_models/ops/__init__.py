"""Small operations of diffusion transformers.

Each is a module of functions with equal signatures: `reference`, the plain form that defines the operation,
and forms that are faster somewhere. `choosing` picks one of each for a device.
"""

from typing import TYPE_CHECKING

from mm_config.schema import lazy

if TYPE_CHECKING:
    from mm_models.ops.choosing import Ops, approximated, choose, described
    from mm_models.ops.layers import Float32LayerNorm, Float32Linear
    from mm_models.ops.rope import Rope, axis_table, grid_table
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
