"""Other people's files: a handle in, an `Encoder` out, and back."""
