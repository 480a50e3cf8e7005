"""Checks of how a frame was computed, from what its file says of the run (``Frame.info``)."""

from __future__ import annotations

import re

from lamkit.data.frame import SYMBOLS, Frame
from lamkit.data.quality.findings import Finding, Rules, found

NON_SELF_CONSISTENT = 10  # ICHARG from here on keeps the density fixed
NO_MINIMISATION = {2: "None", 3: "Eigenval", 4: "Subrot"}  # VASP's IALGO
THEORY = ("functional", "hubbard_u", "dispersion", "code")


def theory(frame: Frame) -> dict[str, str]:
    """Level of theory as the file of a frame gives it; empty where it says nothing."""
    return {name: str(frame.info[name]) for name in THEORY if frame.info.get(name)}


def machine_learned(frame: Frame, rules: Rules) -> Finding | None:
    """Labels of VASP's machine-learned force field (trap A4)."""
    ml = frame.info.get("labels_from") == "machine learning"
    reason = "labels of a machine-learned force field, not of DFT" if ml else None
    return found("machine_learned", rules.checks.machine_learned, reason)


def non_self_consistent(frame: Frame, rules: Rules) -> Finding | None:
    """A band-structure run: its density is that of another structure or k-grid (trap A5)."""
    icharg, ialgo = int(frame.info.get("icharg", 0)), int(frame.info.get("ialgo", 38))
    reason = None
    if icharg >= NON_SELF_CONSISTENT:
        reason = f"not self-consistent (ICHARG = {icharg}): its energies are no ground-state energies"
    elif ialgo in NO_MINIMISATION:
        reason = f"not self-consistent (ALGO = {NO_MINIMISATION[ialgo]}): its energies are no ground-state energies"
    return found("non_self_consistent", rules.checks.non_self_consistent, reason)


def scf(frame: Frame, rules: Rules) -> Finding | None:
    """Electronic steps that did not converge (traps C1 to C6)."""
    said = str(frame.info.get("scf", "converged"))
    return found("scf", rules.checks.scf, None if said == "converged" else said)


def functional(frame: Frame, rules: Rules) -> Finding | None:
    """Functional that was used against the head's; a meta-GGA that was asked for and did not run (trap A6)."""
    used, asked = frame.info.get("functional"), frame.info.get("asked_metagga")
    wanted = rules.level.functional if rules.level is not None else None
    action = rules.checks.functional
    if used and wanted is not None and _plain(str(used)) != _plain(wanted):
        vain = f", as METAGGA = {asked} did not run" if asked and asked != "unproven" else ""
        return found("functional", action, f"functional is {used}{vain}; the head's is {wanted}")
    if asked == "unproven":
        reason = f"METAGGA = {used} was asked for; vasprun.xml does not say whether it ran, OUTCAR does"
        return found("functional", "off" if action == "off" else "flag", reason)
    if asked:
        reason = f"METAGGA = {asked} was asked for and did not run; functional is {used}"
        return found("functional", "off" if action == "off" else "flag", reason)
    return None


def _plain(name: str) -> str:
    """Name of a functional for comparing: ``r2SCAN`` and ``R2-SCAN``, ``PBE+U`` and ``PBE`` are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+u", ""))


def hubbard_u(frame: Frame, rules: Rules) -> Finding | None:
    """Values of U that were used against the head's; a head with a sentence instead of values allows any."""
    if rules.level is None or "hubbard_u" not in frame.info or isinstance(rules.level.hubbard_u, str):
        return None
    present = {SYMBOLS[z] for z in set(frame.numbers.tolist())}
    used = {s: u for s, u in _values(str(frame.info["hubbard_u"])).items() if s in present and u}
    wanted = {s: u for s, u in (rules.level.hubbard_u or {}).items() if s in present and u}
    same = used.keys() == wanted.keys() and all(abs(used[s] - wanted[s]) < 5e-3 for s in used)
    reason = f"U is {_words(used)}; the head's is {_words(wanted)}"
    return found("hubbard_u", rules.checks.hubbard_u, None if same else reason)


def _values(text: str) -> dict[str, float]:
    return {symbol: float(value) for symbol, value in re.findall(r"([A-Z][a-z]?) (-?[\d.]+)", text)}


def _words(values: dict[str, float]) -> str:
    return ", ".join(f"{s} {u:g} eV" for s, u in sorted(values.items())) or "none"


def dispersion(frame: Frame, rules: Rules) -> Finding | None:
    """Dispersion correction that was used against the head's."""
    if rules.level is None or "dispersion" not in frame.info:
        return None
    used, wanted = str(frame.info["dispersion"]), rules.level.dispersion or ""
    reason = f"dispersion correction is {used or 'none'}; the head's is {wanted or 'none'}"
    same = _plain(used) == _plain(wanted.split(" ")[0])
    return found("dispersion", rules.checks.dispersion, None if same else reason)


def isif1(frame: Frame, rules: Rules) -> Finding | None:
    """Stress of ISIF = 1, of which VASP computes only the trace (trap D8)."""
    if frame.stress is None or frame.info.get("isif") != 1:
        return None
    action = rules.checks.isif1
    left_out = "stress left out" if action == "mask" else "stress is not complete"
    return found("isif1", action, f"{left_out}: with ISIF = 1 only the pressure is computed")


def charge(frame: Frame, rules: Rules) -> Finding | None:
    """A charged cell (trap B7)."""
    value = float(frame.info.get("charge", 0.0))
    reason = (
        f"cell with a charge of {value:+g}: its energy depends on the background"
        if abs(value) > 1e-3
        else None
    )
    return found("charge", rules.checks.charge, reason)


def core_hole(frame: Frame, rules: Rules) -> Finding | None:
    """A core-level run: an excited state."""
    reason = "core-level run (ICORELEVEL): energies of a state with a core hole may be meant"
    return found("core_hole", rules.checks.core_hole, reason if frame.info.get("core_hole") else None)


def fixed_atoms(frame: Frame, rules: Rules) -> Finding | None:
    """Atoms that were held fixed; readers give their raw forces (trap A8)."""
    reason = "some atoms were held fixed; their raw DFT forces are kept"
    return found("fixed_atoms", rules.checks.fixed_atoms, reason if frame.info.get("fixed_atoms") else None)


def doubt(frame: Frame, rules: Rules) -> Finding | None:
    """A doubt of the reader."""
    said = frame.info.get("doubt")
    return found("doubt", rules.checks.doubt, str(said) if said else None)
