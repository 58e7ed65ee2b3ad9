"""The daemon: whoever holds a home's lock serves its socket; and the client that the command line talks through.

    server.py      hold the lock, listen, boot, serve, halt            (python -m mains.daemon)
    app.py         the HTTP routes; stream.py: what takes long, as lines; diary.py: a process's history as text
    listener.py    the sockets; guard.py: the token that TCP needs
    client.py      the other side, synchronous; launch.py: start a daemon when none answers; logfile.py: its log
    wire.py        how an error crosses

JSON bodies, NDJSON streams. A stream sends an empty line when it has had nothing to say for a while, so that each
side can tell a quiet other from a dead one.
"""
