"""Tests of the analytics database."""
