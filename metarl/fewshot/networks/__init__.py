"""Backbones, encoders, and networks as pure functions of explicit parameters."""
