"""Bodies of scans, brought to the form that the engine runs."""
