"""TeleFuser's `dump_config` files, read as inference specs."""

from mm_config.importing.telefuser.importer import import_dump

__all__ = ["import_dump"]
