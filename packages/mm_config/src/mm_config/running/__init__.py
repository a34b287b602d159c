"""Carrying out a finished spec: runners, weights that a training makes, mistakes in experiment files."""
