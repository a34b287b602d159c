"""What a person reads while mm works: notes, bars, tables, paths and commands."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.console.copyable import shell_command, typed_path
    from mm_config.console.output import (
        Progress,
        aside,
        is_main_rank,
        print_json,
        print_lines,
        progress,
        say,
        set_by_torchrun,
        table,
    )
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
