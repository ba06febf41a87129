"""Leakage checks: what of one user's session came to light in another's, by structure and by content."""
