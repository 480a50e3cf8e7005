"""The level of theory that a VASP run really used, in the words of a head's YAML.

The name of the POTCAR (``PAW_PBE``) is not the functional, and what the INCAR asks for is not always what
ran (trap A6), so each fact is taken from where VASP prints what it uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

GGA = {
    "PE": "PBE",
    "PS": "PBEsol",
    "RP": "RPBE",
    "RE": "revPBE",
    "91": "PW91",
    "AM": "AM05",
    "CA": "LDA",
    "OR": "optPBE",
    "BO": "optB88",
    "MK": "optB86b",
    "ML": "rPW86",
    "BF": "BEEF",
    "B3": "B3LYP",
    "B5": "B3LYP (VWN5)",
}
LEXCH_CODE = {
    "7": "PW91",
    "8": "PBE",
    "14": "PBEsol",
    "40": "revPBE",
}  # VASP's number for it, as seen in files
META = {
    "SCAN": "SCAN",
    "RSCA": "rSCAN",
    "R2SC": "r2SCAN",
    "TPSS": "TPSS",
    "RTPS": "revTPSS",
    "M06L": "M06-L",
    "MBJ": "mBJ",
    "MS0": "MS0",
    "MS1": "MS1",
    "MS2": "MS2",
}
VDW_DF = {
    "revPBE": "vdW-DF",
    "optPBE": "optPBE-vdW",
    "optB88": "optB88-vdW",
    "optB86b": "optB86b-vdW",
    "rPW86": "vdW-DF2",
    "SCAN": "SCAN+rVV10",
    "r2SCAN": "r2SCAN+rVV10",
}
DISPERSION = {
    "1": "D2",
    "10": "D2",
    "11": "D3",
    "12": "D3(BJ)",
    "13": "D4",
    "2": "TS",
    "20": "TS",
    "21": "TS-HI",
    "202": "MBD",
    "263": "MBD-FI",
    "4": "dDsC",
}
ONLY_SINCE_VASP_6 = ("RSCAN", "R2SCAN")  # VASP 5 reads them and goes on without
VERSION = r"\d+\.\d+(\.\d+)?"
UNPROVEN = "unproven"  # the meta-GGA is the one asked for; the file does not say what ran
NOT_SET = ("", "--", "F", "NONE")


def functional(
    *,
    gga: str = "",
    potcar: str = "",
    code: str = "",
    metagga: str = "",
    hybrid: bool = False,
    exchange: float = 0.0,
    screening: float = 0.0,
    vdw_kernel: bool = False,
) -> str:
    """Name of the functional; empty if the file does not tell.

    Args:
        gga: tag GGA as used; ``--`` means that of the POTCAR.
        potcar: LEXCH of the POTCAR.
        code: VASP's number for the functional.
        metagga: tag METAGGA, empty or ``--`` without.
        hybrid: exact exchange is switched on.
        exchange: its fraction.
        screening: its range, 1/Å.
        vdw_kernel: the non-local van der Waals functional is switched on.
    """
    asked = gga.strip().upper()
    base = GGA.get(asked, asked) if asked not in NOT_SET else ""
    base = base or GGA.get(potcar.strip().upper(), "") or LEXCH_CODE.get(code.strip(), "")
    meta = metagga.strip().upper()
    if meta not in NOT_SET:
        base = META.get(meta[:4], META.get(meta, meta))
    if vdw_kernel:
        base = VDW_DF.get(base, f"{base}+vdW kernel")
    return _hybrid(base, exchange, screening) if hybrid else base


def _hybrid(base: str, exchange: float, screening: float) -> str:
    if base.startswith("B3LYP"):
        return base
    if exchange == 1.0:
        return "HF"
    if exchange == 0.25 and base in ("PBE", "PBEsol"):
        if screening == 0.0:
            return "PBE0" if base == "PBE" else "PBEsol0"
        if 0.19 < screening < 0.215:
            return "HSE06" if base == "PBE" else "HSEsol"
        if abs(screening - 0.3) < 0.005:
            return "HSE03" if base == "PBE" else f"HSE03 ({base})"
    return f"{base} hybrid (AEXX {exchange:g}, HFSCREEN {screening:g})"


def hubbard_u(species: Sequence[str], on: bool, u: Sequence[float], j: Sequence[float]) -> str:
    """``Fe 5.3, Mn 3.9`` (U - J in eV); empty without."""
    if not on:
        return ""
    values = {s: u[k] - (j[k] if k < len(j) else 0.0) for k, s in enumerate(species) if k < len(u)}
    return ", ".join(f"{symbol} {value:g}" for symbol, value in sorted(values.items()) if value)


def info(facts: Mapping[str, str | float | None]) -> dict[str, str | float]:
    """The facts that are known, as ``Frame.info`` holds them."""
    return {name: value for name, value in facts.items() if value is not None}
