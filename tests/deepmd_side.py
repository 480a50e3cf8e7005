"""Runs in DeePMD-kit's environment: python deepmd_side.py MODEL IN.npz OUT.npz evaluates one structure."""

import sys

import numpy as np
from deepmd.infer import DeepPot

model, given, found = sys.argv[1:]
data = np.load(given)
results = DeepPot(model).eval(data["positions"][None], data["cell"].reshape(1, 9), data["types"], atomic=True)
energy, forces, virial, energies = (np.asarray(r, np.float64) for r in results[:4])
np.savez(
    found,
    energy=energy.ravel(),
    forces=forces.reshape(-1, 3),
    virial=virial.reshape(3, 3),
    energies=energies.ravel(),
)
