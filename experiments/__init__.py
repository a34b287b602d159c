"""One short file per run; each holds values only."""
