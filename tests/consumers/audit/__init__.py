"""Tests of audit replay."""
