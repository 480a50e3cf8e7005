"""Operators in C++ for the parts of the network that take its time on a CPU; see cells.py for their use."""
