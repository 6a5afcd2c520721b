"""Whole models, from tokens to logits."""
