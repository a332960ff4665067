"""The BERT encoder: layers, kernels, weights and precision."""
