"""Crystals as structures, without any model: their symmetry, their disorder, and changed copies of them."""
