"""An experiment in a few calls: make a family, train, load, measure, compare. What `import metarl` offers of its own.

Everything here names agents, families and data sets as the command line does, and finds those of others too.
"""
