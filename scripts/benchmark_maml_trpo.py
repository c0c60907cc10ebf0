"""Where a MAML-TRPO iteration goes, and how long learning takes.

python scripts/benchmark_maml_trpo.py --json results/benchmarks/maml_trpo.json
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

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
CHEETAH = make_family("metarl/HalfCheetahVelocity-v0")
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


def against_sampling(fraction: float, steps: str) -> Comparison:
    """How many updates are done in the time in which an iteration on half-cheetah velocity is sampled."""
    config = replace(maml_trpo.DEFAULTS["mujoco"], tasks=10, threads=1, curvature_fraction=fraction)
    policy = config.policy(CHEETAH)
    params = policy.init(Key(0).torch())
    batches = MetaBatches(config, CHEETAH, policy, Key(1))
    data = batches.gather(params, 0)

    def update() -> float:
        maml_trpo.meta_step(policy, params, data, config)
        return 1.0

    def sample() -> float:
        batches.gather(params, 0)
        return 1.0

    return Comparison(
        name=f"half-cheetah velocity, 10 tasks, one thread, curvature of {steps}: updates/s / samplings/s",
        ours=update,
        baseline=sample,
        target=2.0,  # an update takes half the time of the sampling
    )


def update_against_sampling() -> Comparison:
    """The update as it is by default."""
    return against_sampling(1.0, "all steps")


def update_of_half_the_curvature_against_sampling() -> Comparison:
    """With half of the steps in the Fisher-vector product."""
    return against_sampling(0.5, "half of the steps")


def update_of_a_quarter_of_the_curvature_against_sampling() -> Comparison:
    """With a quarter of the steps in it."""
    return against_sampling(0.25, "a quarter of the steps")


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


ROWS = [
    fisher_vector_product,
    update_against_sampling,
    update_of_half_the_curvature_against_sampling,
    update_of_a_quarter_of_the_curvature_against_sampling,
    time_to_learn,
]

if __name__ == "__main__":
    main(ROWS, __doc__)
