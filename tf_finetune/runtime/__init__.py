"""Where a run computes: hardware, strategy, workers, signals."""
