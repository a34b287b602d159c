"""From clips as people have them to an index: what sources list, what measuring finds, what is kept."""
