"""MuJoCo in batches: the engine, its robots, and their pictures."""
