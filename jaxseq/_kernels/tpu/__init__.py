"""The kernel for TPUs, in Pallas."""
