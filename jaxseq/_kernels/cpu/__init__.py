"""A native engine for CPUs: one kernel in C++ for the steps of any cell."""
