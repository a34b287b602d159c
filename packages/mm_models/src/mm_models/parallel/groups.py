"""Process groups by their names: operations that are compiled take no other objects."""

from torch.distributed import ProcessGroup
from torch.distributed.distributed_c10d import (
    GroupName,
    _resolve_process_group,  # pyright: ignore[reportPrivateImportUsage]
)


def named(group: str) -> ProcessGroup:
    """The process group of that name."""
    return _resolve_process_group(GroupName(group))
