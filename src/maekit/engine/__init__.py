"""The training loop and what it stands on. Knows neither models nor data: it receives a task and batches."""
