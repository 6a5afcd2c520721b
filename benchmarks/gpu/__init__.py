"""Checks and measurements for one NVIDIA GPU, made in minutes; see gpu_check.sh."""
