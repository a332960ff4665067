"""Encoders, heads and the classifier built of them."""
