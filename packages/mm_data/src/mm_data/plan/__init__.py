"""Which samples fill the batch of a step."""
