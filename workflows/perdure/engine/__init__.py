"""HOW runs go on: pure decisions, and the shell that hears, decides, writes and acts."""
