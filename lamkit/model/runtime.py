"""How MindSpore is set up: graph mode, device, silence. Import it through :func:`setup`."""

from __future__ import annotations

import signal
import threading
from types import ModuleType

from lamkit.errors import UserError

DEVICES = ("CPU", "GPU", "Ascend")


def setup(device: str = "CPU") -> ModuleType:
    """MindSpore in graph mode on ``device``.

    Graph mode is not a matter of taste: outside of it gradients of gradients are silently wrong.

    Raises:
        UserError: no such device, or this build of MindSpore does not serve it.
    """
    if device not in DEVICES:
        raise UserError(f"device '{device}' is not one of {', '.join(DEVICES)}")
    try:
        import mindspore  # importing lamkit.model has set GLOG_v before this line
    except ImportError as error:
        raise UserError(
            f"MindSpore cannot be loaded ({error}); on Debian: apt-get install libgomp1; see lamkit doctor"
        ) from None

    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    try:
        mindspore.set_device(device)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"device {device} is not available to this MindSpore ({reason}); use CPU") from None
    _keep_interrupts()
    return mindspore


def _keep_interrupts() -> None:
    """Let SIGTERM raise KeyboardInterrupt, unless somebody else has a use for it.

    While a network runs, MindSpore answers Ctrl-C with SIGTERM to its own process, which would end without a
    word and without saving what is done.
    """
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
