"""Run folders, their provenance, their SQL index, and what is found through them."""
