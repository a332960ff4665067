"""Many runs, seen from their folders: compared, without TensorFlow."""
