"""Published model formats: from a handle to an `Encoder`, and back to files."""
