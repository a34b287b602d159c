"""Weights of networks in every layout that they are published in: read, checked, written, converted."""
