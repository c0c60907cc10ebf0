"""Meta-reinforcement-learning agents; installed and imported as `metarl.agents`."""

if __name__ != "metarl.agents":
    raise ImportError("import metarl.agents, not agents: the bare name collides with published packages")
