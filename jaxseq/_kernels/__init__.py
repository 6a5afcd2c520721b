"""Kernels that run a cell over time, and what those of all platforms share."""
