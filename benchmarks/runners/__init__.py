"""One model through every runner of this machine, on the same crops: one table.

Hands on nothing: what a runner's own process imports is part of what is measured.
"""
