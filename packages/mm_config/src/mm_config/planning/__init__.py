"""What `mm_config.plan` counts, file by file: FLOPs, memory, traffic, devices, times and what would fit."""
