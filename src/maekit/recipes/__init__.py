"""What maekit can train and judge: each a task that turns a batch into a loss, and run(config)."""
