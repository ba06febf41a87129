"""The schema texts of version 1 of the events, and under `released/` every text that was ever released."""
