"""mm_data."""
