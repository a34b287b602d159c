"""What lists clips and captions, one file for each way in which people keep them."""
