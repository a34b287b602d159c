"""What stands beside a spec and never in it: the options of a run, and where weights and data lie."""
