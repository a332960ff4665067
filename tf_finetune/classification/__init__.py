"""Classification and regression: from a text to labels or a number."""
