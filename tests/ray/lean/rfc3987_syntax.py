"""Says that it is not installed: jsonschema, which Ray imports, does without it then.

Where the notebook's packages are installed, it is too, and it makes a parser of a grammar when it
is imported. That is more than half of the time in which a worker of Ray's starts.
"""

raise ImportError("not wanted in the workers of tests")
