"""mm_train."""
