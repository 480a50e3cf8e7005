"""VASP: ``OUTCAR`` and ``vasprun.xml``.

dpdata is the reader, but it loses a whole file over one damaged step, drops steps without saying which, and
does not look at what kind of run it was. So the text is sorted first (:mod:`outcar`, :mod:`vasprun`): each
ionic step is complete and goes to dpdata (:mod:`through_dpdata`), or it is dropped with its number and the
reason. What the file says of the run (convergence, functional, ICHARG, ISIF …) goes along in ``Frame.info``;
whether a frame is good is decided in :mod:`lamkit.data.quality`.
"""

from lamkit.data.formats.vasp.reader import read_outcar, read_vasprun

__all__ = ["read_outcar", "read_vasprun"]
