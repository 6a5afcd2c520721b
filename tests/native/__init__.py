"""Calls of the native kernels, written to files for `harness.cc`."""
