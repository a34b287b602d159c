"""The verbs of `mm` that need a spec alone; other packages register theirs by entry points."""
