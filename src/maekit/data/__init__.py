"""From a SOURCE to batches."""
