"""Train RL² on a bandit and pull arms: its memory is the adaptation, so it is told what every pull paid.

python examples/adapt_in_memory.py --iterations 150
"""

import argparse

import metarl

options = argparse.ArgumentParser()
options.add_argument("--out", default="runs/example-memory")
options.add_argument("--iterations", type=int, default=150)
options.add_argument("--trials", type=int, default=1000)
given = options.parse_args()

family = metarl.make_family("metarl/BernoulliBandit-v0", arms=5, pulls=10)
agent = metarl.train("rl2", family, out=given.out, iterations=given.iterations, trials=given.trials)

task = family.fixed("test", 1)[0]
env = family.make(task)
obs, _ = env.reset(seed=0)
state, reward, over, arms = None, None, False, []
while not over:
    arm, state = agent.predict(obs, state, reward=reward)  # the state remembers arms and what they paid
    obs, reward, terminated, truncated, _ = env.step(arm)
    arms.append(f"{arm}{'+' if reward else '-'}")
    over = terminated or truncated
print(f"the best arm is {task['mean'].argmax()}; pulled {' '.join(arms)}")
