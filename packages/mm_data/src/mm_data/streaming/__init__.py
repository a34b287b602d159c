"""Batches in the planned order, loaded by threads; what can't be read."""
