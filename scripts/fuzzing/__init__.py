"""Inputs nobody would send by mistake, through every door of the command line; `scripts/fuzz.py` runs them.

`case` says what an input is, `doors` make them, `judge` runs one and says what became of it, `worker` runs many in
processes with limits of time and memory, `kept` holds the runs that inputs point at.
"""
