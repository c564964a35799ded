"""Fuzzing, guided by coverage: millions of inputs for what reads what strangers send.

What it is: targets (`targets`), each a function of bytes that raises when we are wrong; `child` runs one of them under
atheris, which is libFuzzer; `python -m tests.fuzz` runs all of them for long, several at once, and prints the figures.

What is found becomes a case of `tests/hostile`.
"""
