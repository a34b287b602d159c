"""Verbs of `mm data` that need encoders."""
