"""The verbs over HTTP: what ``perdure up`` serves beside driving runs.

    server.py       the socket, and uvicorn in a thread of its own
    app.py          from operations to a Starlette app
    operations.py   what an operation is: a route, what it takes, what it gives
    door.py         who may come in: host, origin, token, size, content type
    service.py      what operations work with
    runs.py, messages.py, hooks.py, health.py   the operations
    beside.py       what needs the user's modules: verbs in a child process
    problems.py     how an error looks
    openapi.py      the document that says all this to programs

An operation calls the verb that the command line calls, and says what that says.
"""
