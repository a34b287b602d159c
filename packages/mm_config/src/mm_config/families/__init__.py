"""Model families, one frozen value each."""
