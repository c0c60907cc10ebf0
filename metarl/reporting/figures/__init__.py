"""Figures, one kind a file, drawn without touching matplotlib's global state."""
