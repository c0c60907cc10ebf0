"""ProMP (Rothfuss et al. 2019): an initialisation that one policy gradient adapts, meta-learned by proximal steps.

For tasks i with support episodes D_i gathered by pi_theta_old and query episodes D'_i by pi_phi_i(theta_old),

    phi_i(theta) = theta - alpha grad_theta L(theta; D_i),   L = -mean_t  pi_theta / pi_theta_old (a_t | s_t)  A_t
    minimise  mean_i  -mean_t min(rho_t A'_t, clip(rho_t, 1 - c, 1 + c) A'_t)  +  eta KL_i,
    rho_t = pi_phi_i(theta) / pi_phi_i(theta_old) (a'_t | s'_t),    KL_i = mean_t KL(pi_theta_old || pi_theta) on D_i,

by several steps of Adam on the same data. The ratio in L is the low-variance-curvature surrogate: its gradient is
that of MAML's loss, but the gradient through it also credits theta for the support data it gathers, which a policy
gradient's log-probability does not (`metarl.ops.surrogates.importance_ratio`). With K inner steps each has a ratio
and a KL of its own, to the policy that gathered its data. Then eta is halved or doubled where the KL is off target.

Advantages, evaluation and units are those of MAML-TRPO. Deviations from the authors' code (jonasrothfuss/ProMP):
actions are in units of their bound, there in tenths of it, so the inner step size and deviations mean other things
(see `Config`); the deviation has a least value, to which every step is put back; means weigh tasks equally.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Adam

from metarl.ambient import plain_torch
from metarl.learning import meta_policy_gradient
from metarl.learning.gradient_adaptation import Adapting
from metarl.learning.meta_batch import MetaBatch, MetaObjective
from metarl.learning.meta_policy_gradient import MetaBatches, Settings
from metarl.learning.settings import check_range
from metarl.meta import inner
from metarl.meta.shards import Sums, on_threads
from metarl.nets.params import Params, flatten, on, unflatten
from metarl.nets.policies import Policy
from metarl.ops import finite
from metarl.ops.surrogates import adapted_penalty, clipped_surrogate, importance_ratio
from metarl.runs.run import Run
from metarl.seeding import Key
from metarl.tasks import TaskFamily


@dataclass(frozen=True)
class Config(Settings):
    """Settings of ProMP. Where no source is named, the value was chosen on validation tasks."""

    updates: int = 5
    """Steps of Adam on the data of an iteration (ProMP: 5)."""
    step_size: float = 3e-3
    """Of Adam (ProMP: 1e-3)."""
    clip: float = 0.3
    """How far the probability ratio of the query counts from 1 (ProMP: 0.3)."""
    kl_penalty: float = 5e-4
    """Initial weight eta of the KL of every inner step's policy from the one that gathered its data (ProMP: 5e-4)."""
    kl_target: float = 0.01
    """That KL, nats, to which eta is adapted: halved below 2/3 of it, doubled above 3/2; 0 keeps eta (ProMP: 0.01,
    though its scripts keep eta)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "updates", least=1)
        check_range(self, "step_size", "clip", above=0)
        check_range(self, "kl_penalty", "kl_target", least=0)


_WIDE = Config(hidden=(64, 64), step_size=1e-3)
SHARED = "tasks"
DEFAULTS = {
    # On half-cheetah directions; and the authors' script for these (run_scripts/pro-mp_run_mujoco.py).
    "mujoco": replace(_WIDE, iterations=250, tasks=10, inner_step_size=0.7, init_std=0.5, min_std=0.3, gae_lambda=0.9),
    "paper": replace(_WIDE, iterations=1000, tasks=40, min_std=1e-6, kl_target=0.0),
}


class Terms(NamedTuple):
    """Parts of means over all tasks."""

    surrogate: Tensor  # (), clipped, of the query
    outer_kl: Tensor  # (), of the query's policies from those that gathered it
    clipped: Tensor  # (), share of the query's steps whose ratio is beyond the clip
    inner_kl: Tensor  # (K,), the same KL of each inner step's policy


class Objective(MetaObjective):
    """The proximal objective of some tasks as a function of flat shared parameters."""

    def __init__(self, policy: Policy, rule: inner.Rule, data: MetaBatch, like: Params, n_tasks: int) -> None:
        super().__init__(policy, rule, data, like, n_tasks)
        with torch.no_grad():
            self.old = [self.distribution(params, k) for k, params in enumerate(data.iterates)]
            self.old_log_prob = [self.log_prob(old, k) for k, old in enumerate(self.old)]

    def terms(self, theta: Tensor, clip: float) -> Terms:
        """What there is to weigh, at parameters re-adapted differentiably on the stored support."""

        def inner_loss(params: Params, k: int) -> Tensor:
            experience, log_prob = self.data.support[k], self.log_prob(self.distribution(params, k), k)
            return -experience.mean(importance_ratio(log_prob, self.old_log_prob[k], experience.advantages))

        iterates = self.readapt(theta, inner_loss)
        *adapting, last = (self.distribution(params, k) for k, params in enumerate(iterates))
        old, log_prob = self.old_log_prob[-1], self.log_prob(last, -1)
        surrogate = clipped_surrogate(log_prob, old, self.data.query.advantages, clip)
        return Terms(
            self.mean(surrogate, -1),
            self.mean(self.old[-1].kl(last), -1),
            self.mean((torch.expm1(log_prob - old).abs() > clip).to(log_prob.dtype), -1),
            torch.stack([self.mean(self.old[k].kl(now), k) for k, now in enumerate(adapting)]),
        )

    def loss_and_gradient(self, theta: Tensor, clip: float, penalties: Tensor) -> tuple[Tensor, Tensor]:
        """The loss `()`, its KLs weighed by `penalties (K,)`, and its gradient `(P,)`."""
        theta = theta.detach().clone().requires_grad_()
        terms = self.terms(theta, clip)
        loss = -terms.surrogate + (penalties * terms.inner_kl).mean()
        (gradient,) = torch.autograd.grad(loss, theta)
        return loss.detach(), gradient

    def measure(self, theta: Tensor, clip: float) -> Tensor:
        """The terms and the old policies' entropy, one after the other, `(K + 4,)`."""
        with torch.no_grad():
            numbers = [*self.terms(theta, clip), self.mean(self.old[-1].entropy(), -1)]
            return torch.cat([part.reshape(-1) for part in numbers])


def meta_update(
    policy: Policy, theta: Tensor, like: Params, adam: Adam, data: MetaBatch, penalties: list[float], config: Config
) -> tuple[list[float], dict[str, float]]:
    """Adam's steps on one meta-batch, which change `theta` in place; the next penalties, and diagnostics.

    Sums over tasks are taken shard by shard and in order: the result depends on no number of threads or processes.

    Raises:
        NonFiniteError: a loss, its gradient or a parameter is not finite.
    """
    rule, weights = config.rule(policy), torch.tensor(penalties).to(theta)
    with on_threads(config.threads) as each:
        sums = Sums(each, data.split)
        shards = [Objective(policy, rule, shard, like, data.split.n_tasks) for shard in data.shards()]
        for _ in range(config.updates):
            parts = each(lambda shard: shard.loss_and_gradient(theta, config.clip, weights), shards)
            losses, gradients = zip(*parts, strict=True)
            _, theta.grad = sums.checked({"the proximal loss": losses, "the meta-gradient": gradients})
            finite.check_gradient({"theta": theta})
            adam.step()
            with torch.no_grad():
                theta.copy_(flatten(policy.project(unflatten(theta, like))))
        finite.check_tensors({"a parameter": theta}, "after the update, ")
        measured = sums.of(lambda shard: shard.measure(theta, config.clip), shards).tolist()
    surrogate, outer_kl, clipped, *inner_kls, entropy = measured
    adapted = [adapted_penalty(eta, kl, config.kl_target) for eta, kl in zip(penalties, inner_kls, strict=True)]
    return adapted if config.kl_target else penalties, {
        "policy/surrogate": surrogate,
        "policy/outer_kl": outer_kl,
        "policy/inner_kl": sum(inner_kls) / len(inner_kls),
        "policy/inner_kl_penalty": sum(penalties) / len(penalties),
        "policy/clip_fraction": clipped,
        "policy/entropy": entropy,
    }


@plain_torch()
def train(config: Config, source: TaskFamily, run: Run, network: Any = None) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one.

    `network` is one's own in Python for the policy (`metarl.nets.module.make_network`); `load` wants it again.
    """
    key, policy = Key(run.seed)("promp"), meta_policy_gradient.begin(config, source, run, network)
    params, penalties = on(policy.init(key("init").torch()), run.device), [config.kl_penalty] * config.inner_steps
    theta = flatten(params).requires_grad_()
    adam = Adam([theta], config.step_size)
    restored = run.restore({"params": params, "optimiser": adam, "penalties": penalties})
    if restored is not None:
        params, penalties = policy.project(on(restored[1]["params"], run.device)), restored[1]["penalties"]
        adam.load_state_dict(restored[1]["optimiser"])
        theta.data.copy_(flatten(params))

    def state() -> dict[str, Any]:
        now = unflatten(theta.detach().clone(), params)
        return {"params": now, "optimiser": adam.state_dict(), "penalties": penalties}

    batches = MetaBatches(config, source, policy, key, run.ranks, run.device)
    with run.loop(config.iterations, checkpoint_every=config.checkpoint_every, state=state) as loop:
        for iteration in loop:
            started = time.perf_counter()
            data = batches.gather(state()["params"], iteration)
            sampled = time.perf_counter()
            with batches.blamed(data):
                penalties, metrics = meta_update(policy, theta, params, adam, data, penalties, config)
            timings = {"sampling_s": sampled - started, "update_s": time.perf_counter() - sampled}
            metrics |= data.metrics() | batches.validation(state()["params"], iteration, run.seed)
            loop.log(metrics, timings)


def load(run: Run, source: TaskFamily, network: Any = None) -> Adapting:
    """The agent of a run, from its last checkpoint; see `metarl.learning.meta_policy_gradient.load`."""
    return meta_policy_gradient.load(run, source, network)
