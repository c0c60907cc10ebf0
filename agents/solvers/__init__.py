"""Solvers of bandits and of tabular MDPs: exact, Bayesian, optimistic."""
