"""A model of one's own in two files: `spec` says what it is, `network` computes it."""
