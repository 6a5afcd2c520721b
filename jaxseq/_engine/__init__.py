"""What runs any update over time, on every platform, with all its derivatives."""
