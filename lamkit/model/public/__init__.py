"""Public Orb weights: their files read and written without the packages they come from. No MindSpore here."""
