"""A text to labels or a number."""
