"""TeleFuser's `dump_config` files, read as inference specs."""
