"""Reading, checking and batching rows of text."""
