"""Features that are kept: named by what they follow from, in shards that prove their content."""
