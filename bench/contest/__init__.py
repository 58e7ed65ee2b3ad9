"""The contest of `python -m bench rivals kills waiting`: one upstream, and a program for each contestant."""
