"""The network: Orb trunk, one head per data set, pair repulsion, and the potential made of them."""

import os

# Before MindSpore is first imported, or its C++ side talks on stderr (3: errors only).
os.environ.setdefault("GLOG_v", "3")
