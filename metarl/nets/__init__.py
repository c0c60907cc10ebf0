"""Distributions, networks and policies as pure functions of explicit parameters."""
