"""Sweeps, one TOML file each (sweep.py's docstring says what may stand in it), and their reader."""
