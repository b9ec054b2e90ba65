"""When runs start: the floor of time tables and events.

Nothing lives here yet. Its only output will be rows in a store.
"""
