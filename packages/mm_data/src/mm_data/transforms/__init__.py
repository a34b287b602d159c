"""Which frames of a clip, and what becomes of them and of its caption."""
