"""Reading frames by exact timestamp, and writing mp4 files."""
