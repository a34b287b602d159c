"""What a person looks at before and beside training: the data in one page, and what the model sees."""
