"""What `scripts/reproduce.py` and `scripts/recompute.py` are made of; `scripts/tables.toml` says what there is."""
