"""Layers put together."""
