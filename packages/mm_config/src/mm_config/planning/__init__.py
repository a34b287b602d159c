"""What a spec will take, counted from it alone: FLOPs, memory, traffic, times, and what would fit."""
