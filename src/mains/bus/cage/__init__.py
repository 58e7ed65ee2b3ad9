"""What the supervisor does to a device between fork and exec, so that it can touch only what it was given.

Standard library only, and nothing of Mains: the supervisor imports these files by their folder (`supervisor.py`).
"""
