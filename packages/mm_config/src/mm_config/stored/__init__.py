"""Specs as text: strict loading, files, source, layers, sentences about a spec."""
