"""When runs start: the floor of time tables and events.

Its only output is rows in a store. What is here decides and computes: no clock, no I/O.
"""
