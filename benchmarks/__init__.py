"""The benchmark: ours beside the original, the machine's own limits in the same run.

What it is: `python -m benchmarks` (or `make bench`), which makes bundles from a seed, starts both services one after the
other with the same neighbours on the same disk, and writes the table and the pictures of `docs/performance.md`.

What it is not: a test.  It knows targets and tells whether they are met, but nothing fails when one is not; the guard on
growth, which does fail, is `tests/growth`.

How it is cut: `sink` are the instant neighbours, `bundles` what is sent, `clients` who sends it, `services` who takes
it, `measure` what it cost, `yardsticks` what the machine could do, `results` and `report` what becomes of the figures.
`rows` has one module for each family of rows.  Servers and environments come from `tests.harness`.
"""
