"""Files and folders that are whole or not there, also after a power cut, and the digests that prove it."""
