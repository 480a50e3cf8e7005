"""Labels by DFT programs: a folder with inputs and a command for each frame, run anywhere, read back here."""
