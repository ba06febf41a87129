"""Views folded from the log: rows that can be thrown away and rebuilt, with their positions in the same transaction."""
