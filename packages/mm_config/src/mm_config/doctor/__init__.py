"""What works on this machine, and how to get what is missing."""
