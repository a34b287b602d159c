"""What users add beside the packages."""
