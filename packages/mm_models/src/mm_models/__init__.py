"""mm_models."""
