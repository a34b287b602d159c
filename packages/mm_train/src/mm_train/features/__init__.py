"""Latents, text and image features that are made once and kept: what makes them, where they lie, how they are
read."""
