"""Where a user's function meets its arguments: shared by every executor, and the worker process."""
