"""Other tools' configurations as experiments: their files are read, understood by tables and reported."""
