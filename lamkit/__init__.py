"""LAMKit: pre-train, fine-tune and distil interatomic potentials over many levels of theory.

Importing this package is cheap and silent; MindSpore is only loaded by the rooms that hold networks
(``lamkit.model``, ``lamkit.train``, ``lamkit.calculator``).
"""

__version__ = "0.1.0"
