"""What a person reads while mm works: notes, bars, tables, paths and commands."""
