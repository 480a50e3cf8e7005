"""Files to break, and ways to break them, for the fuzz tests."""

from __future__ import annotations

import json

import numpy as np

WORDS = [b"nan", b"inf", b"*********", b"1e400", b"-", b"0", b"99999999999999999999", b"\x00", b"\xff\xfe",
         b"<v>", b"</calculation>", b"&lol;", b'"', b"{", b"]", b"\n", b"\n\n", b"=", b" ", b"1_0"]  # fmt: skip


HEADER = """ vasp.5.4.4.18Apr17
   TITEL  = PAW_PBE O 08Apr2002
   LEXCH  = PE
   POMASS =   16.000; ZVAL   =    6.000    mass and valenz
   TITEL  = PAW_PBE H 15Jun2001
   LEXCH  = PE
   POMASS =    1.000; ZVAL   =    1.000    mass and valenz
   number of dos      NEDOS =    301   number of ions     NIONS =     12
   ions per type =               4   8
   ICHARG =      2    charge: 1-file 2-atom 10-const
   NELM   =     60;   NELMIN=  2; NELMDL= -5     # of ELM steps
   ISIF   =      2    stress and relaxation
   NELECT =      32.0000    total number of electrons
   GGA     =    --    GGA type"""
SYMBOLS = ["O"] * 4 + ["H"] * 8


def _cell(rng: np.random.Generator) -> np.ndarray:
    """A cell of some 12 Å, askew, Å."""
    return np.diag(rng.uniform(11, 12, 3)) + rng.uniform(-0.5, 0.5, (3, 3))


def _apart(rng: np.random.Generator) -> np.ndarray:
    """Twelve positions well apart within 12 Å."""
    grid = np.array([[i, j, k] for i in range(3) for j in range(2) for k in range(2)])
    return grid * 3.5 + rng.uniform(0, 1, (12, 3))


def _columns(values: np.ndarray, width: int, digits: int) -> str:
    return "".join(f"{x:{width}.{digits}f}" for x in np.ravel(values))


def outcar(n_steps: int = 4, seed: int = 0) -> bytes:
    """An OUTCAR of O4H8 in the grammar of VASP 5, every number of it different."""
    rng = np.random.default_rng(seed)
    lines, line = [HEADER], "-" * 83
    for step in range(1, n_steps + 1):
        cell, forces = _cell(rng), rng.normal(0, 1, (12, 3))
        for k in range(1, 6):
            lines.append(f"--------- Iteration    {step:3d}({k:4d})  ---------")
            lines.append(f"  free energy    TOTEN  =  {-14 - k:20.8f} eV")
        lines += [
            "  FORCE on cell =-STRESS in cart. coord.  units (eV):",
            "  Direction    XX          YY",
            " -----",
        ]
        lines += [f"  Total {_columns(rng.normal(0, 9, 6), 12, 5)}" for _ in range(11)]
        lines += [f"  in kB {_columns(rng.normal(0, 9, 6), 12, 5)}", "  external pressure =       1.00 kB"]
        lines += [" VOLUME and BASIS-vectors are now :", f" {line}", "  volume of cell :    500.00"]
        lines += ["      direct lattice vectors                 reciprocal lattice vectors"]
        lines += [_columns(row, 13, 9) for row in np.hstack([cell, np.linalg.inv(cell).T])]
        lines += [" POSITION                                       TOTAL-FORCE (eV/Angst)", f" {line}"]
        lines += [_columns(x, 13, 5) + _columns(f, 14, 6) for x, f in zip(_apart(rng), forces, strict=True)]
        lines += [
            f" {line}",
            "    total drift:       0.0 0.0 0.0",
            "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)",
        ]
        lines += [f"  free  energy   TOTEN  =  {rng.normal(-14, 0.1):20.8f} eV", ""]
    return "\n".join([*lines, " General timing and accounting informations for this job:", ""]).encode()


def _varray(name: str, rows: np.ndarray) -> str:
    body = "".join(f"   <v>{_columns(row, 17, 8)} </v>\n" for row in rows)
    return f'  <varray name="{name}" >\n{body}  </varray>\n'


def _settings(**values: object) -> str:
    return "".join(f'  <i type="int" name="{name}">  {value}</i>\n' for name, value in values.items())


def vasprun(n_steps: int = 4, seed: int = 0) -> bytes:
    """A vasprun.xml of O4H8, every number of it different."""
    rng = np.random.default_rng(seed)
    atoms = "".join(f"    <rc><c>{s} </c><c>   {1 + (s == 'H')}</c></rc>\n" for s in SYMBOLS)
    types = "".join(
        f"    <rc><c>   {n}</c><c>{s} </c><c>   {m}.000</c><c>   {z}.000</c><c>  PAW_PBE {s} 08Apr2002  </c></rc>\n"
        for n, s, m, z in ((4, "O", 16, 6), (8, "H", 1, 1))
    )
    parts = [
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n',
        ' <generator>\n  <i name="version" type="string">5.4.4 </i>\n </generator>\n',
        f" <incar>\n{_settings(NELM=60)} </incar>\n",
        f" <parameters>\n{_settings(NELM=60, ISIF=2, ICHARG=2)} </parameters>\n <atominfo>\n",
        f'  <array name="atoms" >\n   <set>\n{atoms}   </set>\n  </array>\n',
        f'  <array name="atomtypes" >\n   <set>\n{types}   </set>\n  </array>\n </atominfo>\n',
    ]
    for _ in range(n_steps):
        energy = f"{rng.normal(-14, 0.1):16.8f}"
        scf = (*(f"{rng.normal(-14, 1):16.8f}" for _ in range(4)), energy)
        parts += [" <calculation>\n", *(f"  <scstep>\n{_energy(e)}  </scstep>\n" for e in scf)]
        parts += [f"  <structure>\n   <crystal>\n{_varray('basis', _cell(rng))}   </crystal>\n"]
        parts += [_varray("positions", _apart(rng) / 12), "  </structure>\n"]
        parts += [_varray("forces", rng.normal(0, 1, (12, 3))), _varray("stress", rng.normal(0, 9, (3, 3)))]
        parts += [_energy(energy), " </calculation>\n"]
    return ("".join(parts) + "</modeling>\n").encode()


def _energy(value: str) -> str:
    return f'  <energy>\n   <i name="e_fr_energy"> {value} </i>\n  </energy>\n'


def extxyz(n_frames: int = 4, seed: int = 0) -> bytes:
    """Extended XYZ of O4H8 with energy, forces and stress, every number of it different."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(n_frames):
        stress = rng.normal(0, 0.01, (3, 3))
        lines.append("12")
        lines.append(
            f'Lattice="{_row(_cell(rng))}" Properties=species:S:1:pos:R:3:forces:R:3 '
            f'energy={rng.normal(-14, 0.1):.8f} stress="{_row(stress + stress.T)}" pbc="T T T"'
        )
        forces = rng.normal(0, 1, (12, 3))
        lines += [f"{s} {_row(x)} {_row(f)}" for s, x, f in zip(SYMBOLS, _apart(rng), forces, strict=True)]
    return "\n".join([*lines, ""]).encode()


def _row(values: np.ndarray) -> str:
    return " ".join(f"{x:.8f}" for x in np.ravel(values))


def _structure(rng: np.random.Generator, symbols: list[str]) -> dict[str, object]:
    """A pymatgen structure as a dictionary."""
    sites = [
        {"species": [{"element": s, "occu": 1}], "abc": x.round(8).tolist(), "label": s}
        for s, x in zip(symbols, _apart(rng) / 12, strict=True)
    ]
    return {"lattice": {"matrix": _cell(rng).round(8).tolist()}, "sites": sites}


def mptrj(n_frames: int = 4, seed: int = 0) -> bytes:
    """An MPtrj file of O4H8, every number of it different."""
    rng = np.random.default_rng(seed)
    frames = {
        f"mp-1-0-{k}": {
            "structure": _structure(rng, SYMBOLS),
            "uncorrected_total_energy": round(rng.normal(-14, 0.1), 8),
            "force": rng.normal(0, 1, (12, 3)).round(8).tolist(),
            "stress": rng.normal(0, 9, (3, 3)).round(8).tolist(),
            "mp_id": "mp-1",
        }
        for k in range(n_frames)
    }
    return json.dumps({"mp-1": frames}, indent=1).encode()


def mlearn(n_frames: int = 4, seed: int = 0) -> bytes:
    """An mlearn file of silicon, every number of it different."""
    rng = np.random.default_rng(seed)
    records = [
        {
            "structure": _structure(rng, ["Si"] * 12),
            "outputs": {
                "energy": round(rng.normal(-14, 0.1), 8),
                "forces": rng.normal(0, 1, (12, 3)).round(8).tolist(),
                "virial_stress": rng.normal(0, 9, 6).round(8).tolist(),
            },
            "element": "Si",
            "group": "AIMD-NVT",
            "description": f"Snapshot {k} of 9 of AIMD",
            "num_atoms": 12,
        }
        for k in range(n_frames)
    ]
    return json.dumps(records, indent=1).encode()


SEEDS = {
    "OUTCAR": outcar,
    "vasprun.xml": vasprun,
    "a.extxyz": extxyz,
    "mptrj.json": mptrj,
    "mlearn.json": mlearn,
}


def flip(data: bytes, at: int, much: int, word: bytes) -> bytes:
    """One byte becomes another."""
    return data[:at] + bytes([(data[at] + 1 + much % 255) % 256]) + data[at + 1 :]


def delete(data: bytes, at: int, much: int, word: bytes) -> bytes:
    """A range of bytes is lost."""
    return data[:at] + data[at + 1 + much :]


def repeat(data: bytes, at: int, much: int, word: bytes) -> bytes:
    """A range of bytes comes twice."""
    return data[: at + 1 + much] + data[at:]


def insert(data: bytes, at: int, much: int, word: bytes) -> bytes:
    """A word is put in."""
    return data[:at] + word + data[at:]


def overwrite(data: bytes, at: int, much: int, word: bytes) -> bytes:
    """A word takes the place of as many bytes."""
    return data[:at] + word + data[at + len(word) :]


def truncate(data: bytes, at: int, much: int, word: bytes) -> bytes:
    """The end is lost."""
    return data[:at]


def lose_line(data: bytes, at: int, much: int, word: bytes) -> bytes:
    """A line is lost."""
    start, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
    return data[:start] + data[end + 1 :] if end >= 0 else data[:start]


def repeat_line(data: bytes, at: int, much: int, word: bytes) -> bytes:
    """A line comes twice."""
    start, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
    return data[: end + 1] + data[start:] if end >= 0 else data


WAYS = (flip, delete, repeat, insert, overwrite, truncate, lose_line, repeat_line)


def mutate(data: bytes, rng: np.random.Generator) -> tuple[bytes, int]:
    """``data`` broken in one to three ways; and in how many."""
    n = int(rng.integers(1, 4))
    for _ in range(n):
        if not data:
            break
        way = WAYS[int(rng.integers(len(WAYS)))]
        much = int(rng.integers(1, 4)) if rng.random() < 0.6 else int(rng.integers(1, 400))
        data = way(data, int(rng.integers(len(data))), much, WORDS[int(rng.integers(len(WORDS)))])
    return data, n
