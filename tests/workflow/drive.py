"""The real command line, with the fake stage registered: ``python drive.py run WORKFLOW ...``."""

from __future__ import annotations

import sys

from lamkit import cli
from lamkit.stages import STAGES

if __name__ == "__main__":
    STAGES |= {"fake": "fake_stage", "label": "fake_parts"}
    sys.exit(cli.main(sys.argv[1:]))
