"""A value of a table in memory that maps a file, which somebody may have damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def cell(column: pa.Array, index: int) -> Any:
    """A value of a column, held to its file first: damaged offsets would be followed out of memory.

    Raises:
        ValueError: It is damaged.
    """
    import pyarrow as pa

    one = column.slice(index, 1)
    if not pa.types.is_list(one.type):
        one.validate(full=True)
        return one[0].as_py()
    if one.null_count:
        return None
    first, end = one.offsets.to_pylist()
    if not 0 <= first <= end <= len(one.values):
        raise ValueError(f"entries {first} to {end} of {len(one.values)}")
    return [cell(one.values, place) for place in range(first, end)]
