"""Audit replay: what happened, to whom, and how it stood at any point, read from the log's own bytes."""
