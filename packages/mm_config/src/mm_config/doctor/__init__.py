"""What works on this machine, and how to get what is missing."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.doctor.checks import (
        BROKEN,
        MISSING,
        OK,
        WARNING,
        Check,
        Checks,
        CheckStatus,
        DoctorOptions,
    )
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
