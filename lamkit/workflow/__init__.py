"""Chains of stages.

``spec`` reads the workflow file, ``graph`` orders it, ``plan`` decides what has to run and why, ``execute``
does it, ``journal`` remembers.
"""
