"""The code that a pass runs: whose line it is, what it calls things, what it says."""
