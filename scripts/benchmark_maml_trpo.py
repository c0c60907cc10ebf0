"""Where a MAML-TRPO iteration goes, and how long learning takes.

python scripts/benchmark_maml_trpo.py --json results/benchmarks/maml_trpo.json
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import torch
from benchmark import Comparison, Row, main

from metarl.agents import maml_trpo
from metarl.envs import make_family
from metarl.learning.contract import Budget
from metarl.learning.meta_batch import adapt_to_tasks
from metarl.learning.meta_policy_gradient import MetaBatches
from metarl.meta import inner
from metarl.nets.params import flatten
from metarl.nets.policies import mlp_policy
from metarl.parallel import intra_op_threads
from metarl.seeding import Key

FAMILY = make_family("metarl/Navigation2D-v0")
THREADS = 2
SEEDS = range(3)
ENOUGH, LONGEST = -12.0, 120  # the return to reach after one step, and the iterations after which to give up


def fisher_vector_product() -> Comparison:
    """One product through the adaptation, 20 tasks x 20 episodes x 100 steps, 64-64 tanh, against double backward."""
    config = maml_trpo.Config(hidden=(64, 64))
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, config.hidden)
    params, rule = policy.init(Key(0).torch()), inner.Rule(config.inner_step_size)
    env = FAMILY.make_vec(FAMILY.fixed("train", config.tasks), config.episodes)
    data = adapt_to_tasks(env, policy, params, rule, Key(1), config.gamma, config.gae_lambda)
    theta, v = flatten(params), torch.ones_like(flatten(params))
    shards = [maml_trpo.Objective(policy, rule, part, params, config.tasks) for part in data.shards()]
    pool = ThreadPoolExecutor(THREADS)
    with intra_op_threads(1):
        products = list(pool.map(lambda shard: shard.curvature(theta), shards))
    whole = maml_trpo.Objective(policy, rule, data, params, config.tasks)
    leaf = theta.clone().requires_grad_()
    kl = (whole.old.kl(whole.adapted(leaf)) * whole.weights).sum()
    (gradient,) = torch.autograd.grad(kl, leaf, create_graph=True)

    def ours() -> float:
        with intra_op_threads(1):
            sum(pool.map(lambda part: part(v), products))
        return 1.0

    def double_backward() -> float:
        with intra_op_threads(THREADS):
            torch.autograd.grad(gradient @ v, leaf, retain_graph=True)
        return 1.0

    summed = sum(part(v) for part in products)
    (expected,) = torch.autograd.grad(gradient @ v, leaf, retain_graph=True)
    error = float((summed - expected).norm() / expected.norm())
    return Comparison(
        name=f"Fisher-vector product through the adaptation, products/s / double backward (differ by {error:.0e})",
        ours=ours,
        baseline=double_backward,
        target=2.5,
        finish=pool.shutdown,
    )


def seconds_to_learn(seed: int) -> float:
    """Training seconds (sampling and updates) until one step of adaptation scores above ENOUGH on validation goals."""
    config, key = maml_trpo.Config(threads=THREADS), Key(seed)("maml-trpo")
    policy = config.policy(FAMILY)
    params, batches = policy.init(key("init").torch()), MetaBatches(config, FAMILY, policy, key)
    spent = 0.0
    for iteration in range(LONGEST):
        started = time.perf_counter()
        data = batches.gather(params, iteration)
        params, _ = maml_trpo.meta_step(policy, params, data, config)
        spent += time.perf_counter() - started
        agent = config.adapting(policy, params, FAMILY)
        if agent.curve(FAMILY.fixed("validation", 40), Budget(1, 40), 0).values[:, 1].mean() > ENOUGH:
            return spent
    return float("inf")


def time_to_learn() -> Row:
    """Seconds of training until the one-step return on 40 validation goals is better than -12; target 20 s."""
    seconds = [seconds_to_learn(seed) for seed in SEEDS]
    ratios = [20.0 / s for s in seconds]
    return Row(
        name="seconds of training to a one-step return of -12 on 40 validation goals, default config (baseline: 20 s)",
        value=statistics.median(seconds),
        baseline=20.0,
        ratio=statistics.median(ratios),
        target=1.0,
        met=statistics.median(seconds) <= 20.0,
        repeats=len(seconds),
        spread=(min(ratios), max(ratios)),
    )


ROWS = [fisher_vector_product, time_to_learn]

if __name__ == "__main__":
    main(ROWS, __doc__)
