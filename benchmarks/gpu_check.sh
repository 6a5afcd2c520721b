#!/bin/sh
# All checks and measurements on one NVIDIA GPU in under 9 minutes; see README.md.
cd "$(dirname "$0")/.." && exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
