"""Outputs of programs that cannot be run here, as short as they can be, with the labels of a given frame.

Each writer makes the files in a folder and returns the one to convert. Numbers are printed as the programs print
them: their units, signs and decimals.
"""

from __future__ import annotations

import numpy as np
from ase import units

from lamkit.data.frame import SYMBOLS, Frame, from_voigt, make_frame, volume

HA, BOHR = units.Hartree, units.Bohr
FORCE = HA / BOHR
KCAL = units.kcal / units.mol
KBAR = 1602.1766208  # kbar in one eV/Å³


def molecule() -> Frame:
    """Bent H2O without a cell; labels of no physical meaning."""
    return make_frame(
        [8, 1, 1],
        [[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.1, -0.76, -0.48]],
        energy=-2079.5,
        forces=[[0.5, -0.25, 0.125], [-0.375, 0.5, 0.25], [-0.125, -0.25, -0.375]],
    )


def crystal() -> Frame:
    """Si and O in a lower triangular cell, sheared, so that every component of the stress differs."""
    return make_frame(
        [14, 8],
        [[0.1, 0.2, 0.3], [2.0, 2.1, 2.2]],
        [[4.0, 0.0, 0.0], [0.3, 4.2, 0.0], [0.1, 0.2, 4.4]],
        energy=-215.25,
        forces=[[0.5, -0.25, 0.125], [-0.5, 0.25, -0.125]],
        stress=[0.01, 0.02, 0.03, 0.004, 0.005, 0.006],
    )


def symbols(frame):
    return [SYMBOLS[z] for z in frame.numbers]


def rows(template, *columns):
    return "".join(template.format(*values) + "\n" for values in zip(*columns, strict=True))


def xyz(array, pattern="{:16.9f}"):
    return ["".join(pattern.format(x) for x in row) for row in np.asarray(array)]


def gaussian_log(folder, frame, *, extra=""):
    line = " " + "-" * 69 + "\n"
    n = range(1, len(frame) + 1)
    text = " Entering Gaussian System, Link 0=g16\n" + " " * 26 + "Input orientation:\n" + line
    text += (
        " Center     Atomic      Atomic             Coordinates (Angstroms)\n Number     Number       Type\n"
        + line
    )
    text += rows("{:7d}{:11d}           0    {}", n, frame.numbers, xyz(frame.positions, "{:12.6f}")) + line
    text += f" SCF Done:  E(RPBE) =  {frame.energy / HA:.10f}     A.U. after    9 cycles\n{extra}"
    text += (
        " Center     Atomic                   Forces (Hartrees/Bohr)\n Number     Number    X  Y  Z\n" + line
    )
    text += rows("{:7d}{:9d}       {}", n, frame.numbers, xyz(frame.forces / FORCE, "{:15.9f}")) + line
    return write(folder / "job.log", text)


def gaussian_fchk(folder, frame):
    def numbers(values):
        return "".join(
            "".join(f"{x:16.8E}" for x in values[i : i + 5]) + "\n" for i in range(0, len(values), 5)
        )

    n = len(frame)
    text = f"job\nForce     RPBE\nNumber of atoms                            I{n:17d}\n"
    text += f"Atomic numbers                             I   N={n:12d}\n" + "".join(
        f"{z:12d}" for z in frame.numbers
    )
    text += f"\nCurrent cartesian coordinates              R   N={3 * n:12d}\n"
    text += numbers(frame.positions.ravel() / BOHR)
    text += f"Total Energy                               R{frame.energy / HA:27.15E}\n"
    text += f"Cartesian Gradient                         R   N={3 * n:12d}\n"
    text += numbers(-frame.forces.ravel() / FORCE)
    return write(folder / "job.fchk", text)


def orca(folder, frame, *, extra=""):
    n = range(1, len(frame) + 1)
    text = (
        " " * 33
        + "* O   R   C   A *\n\nCARTESIAN COORDINATES (ANGSTROEM)\n---------------------------------\n"
    )
    text += rows("  {:2s} {}", symbols(frame), xyz(frame.positions, "{:14.6f}"))
    text += f"\n{extra}FINAL SINGLE POINT ENERGY     {frame.energy / HA:.12f}\n\n"
    text += "------------------\nCARTESIAN GRADIENT\n------------------\n\n"
    text += rows("{:4d}   {}   :  {}", n, symbols(frame), xyz(-frame.forces / FORCE, "{:15.9f}")) + "\n"
    return write(folder / "job.out", text)


def psi4(folder, frame):
    n = range(1, len(frame) + 1)
    text = "          Psi4: An Open-Source Ab Initio Electronic Structure Package\n\n"
    text += "    Geometry (in Angstrom), charge = 0, multiplicity = 1:\n\n"
    text += "       Center              X                  Y                   Z               Mass       \n"
    text += "    ------------   -----------------  -----------------  -----------------  -----------------\n"
    text += rows("         {:2s}        {}  1.0", symbols(frame), xyz(frame.positions, "{:20.12f}")) + "\n"
    text += f"    Total Energy = {frame.energy / HA:.16f}\n\n"
    text += "  ## Total Gradient (Symmetry 0) ##\n  Irrep: 1 Size: 3 x 3\n\n        1   2   3\n\n"
    text += rows("    {:2d}  {}", n, xyz(-frame.forces / FORCE, "{:20.14f}")) + "\n"
    return write(folder / "output.dat", text)


def sqm(folder, frame):
    n = range(1, len(frame) + 1)
    text = " " * 29 + f"AMBER SQM VERSION 19\n Total SCF energy    = {frame.energy / KCAL:20.8f} kcal/mol  ( "
    text += f"{frame.energy:20.8f} eV)\n  Atom    Element       Mulliken Charge\n"
    text += (
        rows("{:6d}      {:2s}             0.000", n, symbols(frame)) + " Total Mulliken Charge =  0.000\n\n"
    )
    text += " Final Structure\n\n  QMMM: QM Region Cartesian Coordinates\n  QMMM: QM_NO.   MM_NO.  ATOM\n"
    text += rows("  QMMM:{:6d}{:8d}      {:2s} {}", n, n, symbols(frame), xyz(frame.positions, "{:12.4f}"))
    text += "QMMM: Forces on QM atoms from SCF calculation\n"
    text += rows("QMMM: Atm {:5d}:{}", n, xyz(-frame.forces / KCAL, "{:20.14f}"))
    return write(folder / "sqm.out", text)


def dftbplus(folder, frame, *, mode="C", driver="{}"):
    kinds = list(dict.fromkeys(symbols(frame)))
    n, types = range(1, len(frame) + 1), [kinds.index(s) + 1 for s in symbols(frame)]
    text = f"Geometry = GenFormat {{\n{len(frame)} {mode}\n{' '.join(kinds)}\n"
    text += (
        rows("{} {} {}", n, types, xyz(frame.positions)) + f"}}\nDriver = {driver}\nHamiltonian = DFTB {{}}\n"
    )
    write(folder / "dftb_pin.hsd", text)
    text = f" Fermi distribution function\nTotal energy:   {frame.energy / HA + 0.01:20.10f} H   0 eV\n"
    text += (
        f"Total Mermin free energy:   {frame.energy / HA:20.10f} H   0 eV\n\nSCC converged\n\nTotal Forces\n"
    )
    text += rows("{:5d} {}", n, xyz(frame.forces / FORCE, "{:18.12f}"))
    return write(folder / "detailed.out", text)


def openmx(folder, frame, *, converged=(1, 1)):
    n = range(1, len(frame) + 1)
    text = "<Atoms.SpeciesAndCoordinates\n" + rows("{} {} {} 4 4", n, symbols(frame), xyz(frame.positions))
    write(folder / "job.dat", text + "Atoms.SpeciesAndCoordinates>\n")
    text = ""
    for k, flag in enumerate(converged):
        cell = "".join(f"{x:10.5f}" for x in frame.cell.ravel())
        text += f"{len(frame)} \n   time= {float(k):.3f} (fs)  Energy= {frame.energy / HA:.8f} (Hartree) "
        text += f"Cell_Vectors={cell} scf_conv={flag}\n"
        columns = xyz(frame.positions, "{:12.7f}"), xyz(frame.forces / FORCE, "{:12.8f}")
        text += rows("   {:2s} {}{}   0.0 0.0 0.0", symbols(frame), *columns)
    return write(folder / "job.md", text)


def n2p2(folder, frame, *, length=BOHR, energy=HA):
    text = "begin\ncomment from a test\n" + rows("lattice {}", xyz(frame.cell / length, "{:18.12f}"))
    columns = (
        xyz(frame.positions / length, "{:18.12f}"),
        symbols(frame),
        xyz(frame.forces / energy * length, "{:18.12f}"),
    )
    text += rows("atom {} {} 0.0 0.0 {}", *columns)
    return write(folder / "input.data", text + f"energy {frame.energy / energy:.12f}\ncharge 0.0\nend\n")


def siesta(folder, frame, *, steps=1):
    kinds = list(dict.fromkeys(symbols(frame)))
    text = f"Siesta Version  : v4.1\nredata: Number of Atomic Species                  =  {len(kinds)}\n"
    text += rows("Species number: {} Label: {} Atomic number: 0", range(1, 1 + len(kinds)), kinds)
    text += f"initatomlists: Number of atoms, orbitals, and projectors:  {len(frame)} 26 36\n"
    types = [kinds.index(s) + 1 for s in symbols(frame)]
    for _ in range(steps):
        text += "outcoor: Atomic coordinates (Ang):                  \n"
        text += rows(
            "{} {} {} {}", xyz(frame.positions, "{:14.8f}"), types, range(1, 1 + len(frame)), symbols(frame)
        )
        text += "\noutcell: Unit cell vectors (Ang):\n" + rows("{}", xyz(frame.cell, "{:12.6f}")) + "\n"
        text += f"siesta: E_KS(eV) = {frame.energy + (0.001 if steps == 1 else 0):20.4f}\n\n"
        text += "siesta: Atomic forces (eV/Ang):\n"
        text += rows("{:6d}{}", range(1, 1 + len(frame)), xyz(frame.forces, "{:12.6f}"))
        text += "-" * 40 + "\n   Tot    0.0  0.0  0.0\n\nsiesta: Stress tensor (static) (eV/Ang**3):\n"
        stress = xyz(from_voigt(frame.stress), "{:12.6f}")
        text += rows("siesta: {}" if steps == 1 else "  {}", stress) + "\n"
        text += f"siesta: Pressure (static): {-frame.stress[:3].mean():.8f}\n\n"
    if steps == 1:
        text += f"siesta: Program's energy decomposition (eV):\nsiesta: FreeEng = {frame.energy:.6f}\n"
    return write(folder / "siesta.out", text)


def fhi_aims(folder, frame, *, extra=""):
    n = range(1, len(frame) + 1)
    text = "          Invoking FHI-aims ...\n  | Unit cell: \n" + rows("  |  {}", xyz(frame.cell))
    text += "  | Atomic structure: \n  |       Atom                x [A]            y [A]            z [A]\n"
    text += rows("  | {:4d}: Species {} {}", n, symbols(frame), xyz(frame.positions, "{:18.9f}"))
    text += f"  Self-consistency cycle converged.\n{extra}"
    text += f"  | Total energy uncorrected      : {frame.energy + 0.01:30.15E} eV\n"
    text += f"  | Electronic free energy        : {frame.energy:30.15E} eV\n  Total atomic forces [eV/Ang]:\n"
    text += rows("  | {:4d} {}", n, xyz(frame.forces, "{:30.15E}"))
    return write(folder / "aims.out", text)


def abacus(folder, frame, *, energy=True):
    kinds = list(dict.fromkeys(symbols(frame)))
    fractions = np.linalg.solve(frame.cell.T, frame.positions.T).T
    text = "ATOMIC_SPECIES\n" + "".join(f"{s} 1.0 {s}.upf\n" for s in kinds)
    text += f"\nLATTICE_CONSTANT\n{1 / BOHR:.12f}\n\nLATTICE_VECTORS\n" + rows("{}", xyz(frame.cell))
    text += "\nATOMIC_POSITIONS\nDirect\n"
    for s in kinds:
        mine = [f for f, symbol in zip(fractions, symbols(frame), strict=True) if symbol == s]
        text += f"\n{s}\n0.0\n{len(mine)}\n" + rows("{} 1 1 1", xyz(mine))
    write(folder / "STRU", text)
    write(folder / "INPUT", "INPUT_PARAMETERS\nsuffix  job\ncalculation  scf\n")
    text = " " * 29 + "WELCOME TO ABACUS\n"
    if not energy:
        return write(folder / "OUT.job/running_scf.log", text + " convergence has NOT been achieved!\n")
    names = [f"{s}1" for s in symbols(frame)]
    text += f" final etot is {frame.energy:.12f} eV\n\n TOTAL-FORCE (eV/Angstrom)\n\n"
    text += rows("{:8s}{}", names, xyz(frame.forces, "{:20.10f}")) + "\n\n TOTAL-STRESS (KBAR)\n\n"
    text += rows("{}", xyz(-from_voigt(frame.stress) * KBAR, "{:20.10f}")) + "\n"
    return write(folder / "OUT.job/running_scf.log", text)


def pwmat(folder, frame):
    fractions = np.linalg.solve(frame.cell.T, frame.positions.T).T
    text = f"  {len(frame)} atoms,Iteration (fs) =    0.1E+01, Etot,Ep,Ek (eV) =   0.0E+00  "
    text += f"{frame.energy:.10E}   0.3E+00, SCF =    19\n Lattice vector (Angstrom)\n"
    virial = -volume(frame) * from_voigt(frame.stress)
    text += rows("{}     stress (eV): {}", xyz(frame.cell), xyz(virial, "{:18.9f}"))
    text += " Position (normalized), move_x, move_y, move_z\n"
    text += rows("{:4d} {} 1 1 1", frame.numbers, xyz(fractions))
    text += " Force (-force, eV/Angstrom)\n" + rows("{:4d} {}", frame.numbers, xyz(-frame.forces))
    return write(folder / "MOVEMENT", text + " " + "-" * 40 + "\n")


def amber(folder, frame):
    from scipy.io import netcdf_file

    n = len(frame)
    text = f"%FLAG POINTERS\n%FORMAT(10I8)\n{n:8d}{0:8d}\n%FLAG AMBER_ATOM_TYPE\n%FORMAT(20a4)\n"
    text += "".join(f"{name:4s}" for name in ("OW", "HW", "HW")) + "\n%FLAG ATOMIC_NUMBER\n%FORMAT(10I8)\n"
    write(folder / "job.parm7", text + "".join(f"{z:8d}" for z in frame.numbers) + "\n")
    write(folder / "job.mden", f"L6  0  E_pot\nL6  100  {frame.energy / KCAL:.10f}\n")
    for ending, arrays in (
        ("nc", {"coordinates": frame.positions, "cell_lengths": [20.0] * 3, "cell_angles": [90.0] * 3}),
        ("mdfrc", {"forces": frame.forces / KCAL}),
    ):
        with netcdf_file(folder / f"job.{ending}", "w") as file:
            for k, (name, values) in enumerate(arrays.items()):
                shape = (1, *np.shape(values))
                dimensions = [f"{name}{i}{k}" for i in range(len(shape))]
                for dimension, length in zip(dimensions, shape, strict=True):
                    file.createDimension(dimension, length)
                file.createVariable(name, "f8", dimensions)[:] = np.reshape(values, shape)
    return folder / "job.mdfrc"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
