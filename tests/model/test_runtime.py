"""How MindSpore is set up."""

import os
import signal
import time

import pytest

from lamkit.model.runtime import setup


def test_sigterm_stops_like_ctrl_c_unless_it_is_used_otherwise():
    """MindSpore sends it to its own process where Ctrl-C comes while a network runs."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        setup()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (the signal arrives a moment later)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        setup()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
