"""Runs as people see them: what is shown of them as data, and as a page."""
