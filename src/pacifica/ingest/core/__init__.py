"""Values and rules: no I/O, no clock, no environment, standard library only.

Everything above may import this floor; this floor imports nothing of the project outside itself.
"""
