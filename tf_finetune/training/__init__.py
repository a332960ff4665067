"""Batches to weights: one loop for every kind of model and every strategy."""
