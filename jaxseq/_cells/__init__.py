"""Cells: the three that are built in, and those of a user's own."""
