"""What is true: the records, contracts and stores on which perdure's engine stands.

The lowest floor. It knows rows, bytes and digests; no graphs, no Python functions of the
user's, no meaning of time tables.
"""
