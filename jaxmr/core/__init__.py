"""Foundations without physics: array aliases, checks of input, batching."""
