"""Every call fails once: each system call, SQL statement and HTTP call of one job, in each way.

`python -m tests.faults.calls` runs all points and prints the table; `tests/faults/test_calls.py` runs them as tests.

How it works: `rounds` is a process with `shim.c` preloaded, which forks one child for each point.  The child is a whole
service with real adapters (`site`), whose calls are counted by `shim` and `traps`; one of them goes wrong.  When the
child died, a second one does what a restart does.  `tests.faults.oracle` judges what is left.
"""
