"""Wan's diffusion transformer."""
