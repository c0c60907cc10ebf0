"""A callback of your own: it judges the agent on validation tasks, logs the score, and stops when that is good enough.

python examples/own_callback.py --iterations 100
"""

import argparse

import metarl


class StopWhenGood(metarl.Callback):
    """Stops when the mean return after one gradient step reaches a score."""

    def __init__(self, score: float, every: int) -> None:
        self.score, self.every = score, every

    def on_start(self, training):
        self.training = training

    def on_iteration(self, metrics):
        if (metrics["iteration"] + 1) % self.every:
            return True
        agent = self.training.agent()  # as it is now
        tasks = agent.family.fixed("validation", 10)
        metrics["score/after_one_step"] = agent.curve(tasks, metarl.Budget(1, 10), seed=0).values[:, 1].mean()
        return metrics["score/after_one_step"] < self.score


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--out", default="runs/example-callback")
    options.add_argument("--iterations", type=int, default=100)
    options.add_argument("--every", type=int, default=5)
    given = options.parse_args()
    stop = StopWhenGood(-15.0, given.every)
    metarl.train("maml-trpo", "metarl/Navigation2D-v0", out=given.out, callbacks=[stop], iterations=given.iterations)
    print([row["score/after_one_step"] for row in metarl.Run.open(given.out).metrics()[given.every - 1 :: given.every]])
