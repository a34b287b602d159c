"""`python -m mm_config` is `mm`."""

from mm_config.cli.app import app

raise SystemExit(app())
