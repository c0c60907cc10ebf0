"""Train MAML-TRPO on 2D navigation, adapt to a goal it has never seen, and drive a plain Gymnasium loop.

python examples/adapt_and_drive.py --iterations 25
"""

import argparse

import gymnasium

import metarl

options = argparse.ArgumentParser()
options.add_argument("--out", default="runs/example-drive")
options.add_argument("--iterations", type=int, default=25)
options.add_argument("--tasks", type=int, default=40)
options.add_argument("--episodes", type=int, default=40)
given = options.parse_args()

size = {"iterations": given.iterations, "tasks": given.tasks, "episodes": given.episodes}
agent = metarl.train("maml-trpo", "metarl/Navigation2D-v0", out=given.out, **size)

env = gymnasium.make("metarl/Navigation2D-v0", task={"goal": [0.3, -0.2]})
for steps in (0, 1, 3):
    adapted = agent.adapt(env, steps=steps, episodes=given.episodes)
    obs, _ = env.reset(seed=0)
    state, total, over = None, 0.0, False
    while not over:
        action, state = adapted.predict(obs, state)
        obs, reward, terminated, truncated, _ = env.step(action)
        total, over = total + reward, terminated or truncated
    print(f"{steps} gradient steps, {adapted.env_steps} environment steps to adapt: return {total:.1f}")
