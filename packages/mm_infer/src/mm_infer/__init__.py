"""mm_infer."""
