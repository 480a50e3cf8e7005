"""The network: Orb trunk, one head per data set, pair repulsion, and the potential made of them."""

import os
import tempfile

# Before MindSpore is first imported, or its C++ side talks on stderr (3: errors only).
os.environ.setdefault("GLOG_v", "3")
# What it writes of a compilation that fails or is interrupted (rank_0/om) has no place in the folder where the user is.
os.environ.setdefault("MS_OM_PATH", os.path.join(tempfile.gettempdir(), f"lamkit-{os.getuid()}"))
