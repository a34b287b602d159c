"""Configuration as code for video diffusion: specs and what can be done with a spec alone."""
