"""Low-rank adapters: read and written in others' key styles, merged into networks, or kept beside them."""
