"""`mm board`: the runs of a folder in a browser. It reads, and changes nothing."""
