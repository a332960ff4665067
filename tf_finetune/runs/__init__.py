"""One run before TensorFlow is imported: settings, flags, the model directory and its lock."""
