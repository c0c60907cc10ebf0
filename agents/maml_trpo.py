"""MAML-TRPO (Finn, Abbeel and Levine 2017, algorithm 3): an initialisation that one policy gradient adapts.

For tasks i with support episodes D_i gathered by pi_theta and query episodes D'_i by pi_phi_i,

    phi_i(theta) = theta - alpha grad_theta L(theta; D_i),    L = -mean_t log pi_theta(a_t | s_t) A_t
    minimise     -mean_i mean_t  pi_phi_i(theta)(a'_t | s'_t) / pi_phi_i(theta_old)(a'_t | s'_t)  A'_t
    subject to   mean_i mean_t KL(pi_phi_i(theta_old) || pi_phi_i(theta)) <= delta,

solved to first order by conjugate gradient and a backtracking line search (Schulman et al. 2015).
Advantages are returns minus a linear feature baseline fitted to each task's own batch, normalised per
task. The gradient and the curvature go through the adaptation (second order).

Evaluation follows the authors' protocol: vanilla policy-gradient steps on fresh episodes, the first
of size alpha, later ones of alpha / 2.

Actions, and so the inner step size, are in units of the action bound, as in the authors' code (cbfinn/maml_rl).
Deviations from it: the Fisher-vector product is the exact Gauss-Newton form J' F J instead of a finite difference; the
mean KL weighs tasks equally, there steps, which differs where episodes end early.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.learning import meta_policy_gradient
from metarl.learning.gradient_adaptation import Adapting
from metarl.learning.meta_batch import MetaBatch, MetaObjective
from metarl.learning.meta_policy_gradient import MetaBatches, Settings
from metarl.learning.settings import check_range
from metarl.meta import inner
from metarl.meta.shards import Sums, on_threads
from metarl.meta.trust_region_step import Local, TrustRegion, trust_region_step
from metarl.nets.params import Params, flatten, on, unflatten
from metarl.nets.policies import Policy
from metarl.ops import trust_region
from metarl.ops.surrogates import importance_ratio
from metarl.runs.run import Run
from metarl.seeding import Key
from metarl.tasks import TaskFamily

Credit = Literal["none", "ratio"]


@dataclass(frozen=True)
class Config(Settings):
    """Settings of MAML-TRPO. Where no source is named, the value was chosen on validation tasks."""

    max_kl: float = 0.02
    """Trust region, nats a step (Finn et al. 2017: 0.01; for half-cheetah directions 0.02)."""
    cg_iterations: int = 10
    """Conjugate-gradient iterations (Schulman et al. 2015)."""
    cg_damping: float = 1e-5
    """Added to the diagonal of the Fisher matrix (rllab)."""
    curvature_fraction: float = 1.0
    """Share of the steps of every episode in the Fisher-vector product; 1 is exact, less is quicker and noisier."""
    credit: Credit = "none"
    """How theta is credited for the support data that it gathers: none (Finn et al. 2017), or ratio, each action by its
    own advantage, through the adaptation (ProMP, which see)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "cg_iterations", least=1)
        check_range(self, "max_kl", above=0)
        check_range(self, "curvature_fraction", above=0, most=1)
        check_range(self, "cg_damping", least=0)


_PUBLISHED = Config(max_kl=0.01, min_std=1e-6)
SHARED = "tasks"
DEFAULTS = {
    # Finn et al. 2017: "paper" as on 2D navigation (where 100 iterations do), "mujoco" with the network of ProMP.
    "paper": replace(_PUBLISHED, iterations=500, hidden=(100, 100), activation="relu", inner_step_size=0.5),
    "mujoco": replace(_PUBLISHED, iterations=500, tasks=40, hidden=(64, 64)),
}


class Objective(MetaObjective):
    """The surrogate and the trust region of some tasks, as functions of flat shared parameters."""

    def __init__(
        self, policy: Policy, rule: inner.Rule, data: MetaBatch, like: Params, n_tasks: int, credit: Credit = "none"
    ) -> None:
        super().__init__(policy, rule, data, like, n_tasks)
        self.weights = data.query.weights / n_tasks
        with torch.no_grad():
            self.old = self.distribution(data.iterates[-1], -1)
            self.old_log_prob = self.log_prob(self.old, -1)
        self.inner_loss = self.ratio_loss(self.support_log_prob()) if credit == "ratio" else self.score_loss

    def adapted(self, theta: Tensor) -> Any:
        """pi_phi(theta) at the query observations, re-adapted differentiably on the stored support."""
        return self.distribution(self.readapt(theta, self.inner_loss)[-1], -1)

    def surrogate(self, distribution: Any) -> Tensor:
        """The importance-weighted loss; its gradient at the old parameters is the meta-gradient."""
        log_prob = self.log_prob(distribution, -1)
        return -(importance_ratio(log_prob, self.old_log_prob, self.data.query.advantages) * self.weights).sum()

    def local(self, theta: Tensor, curved: bool = False) -> Local:
        """Loss and gradient at the parameters that gathered the data, and from the same pass the curvature if asked."""
        theta = theta.detach().clone().requires_grad_()
        adapted = self.adapted(theta)
        loss = self.surrogate(adapted)
        (gradient,) = torch.autograd.grad(loss, theta, retain_graph=curved)
        return Local(loss.detach(), gradient, self._product(adapted, theta) if curved else None)

    def curvature(self, theta: Tensor) -> trust_region.Product:
        """The product with the Hessian of the KL at the parameters that gathered the data."""
        theta = theta.detach().clone().requires_grad_()
        return self._product(self.adapted(theta), theta)

    def _product(self, adapted: Any, theta: Tensor) -> trust_region.Product:
        return trust_region.gauss_newton_product(adapted.description(), theta, self.fisher)

    def evaluate(self, theta: Tensor) -> Tensor:
        """Surrogate and mean KL from the policies that gathered the query data, `(2,)`."""
        with torch.no_grad():
            distribution = self.adapted(theta)
            return torch.stack([self.surrogate(distribution), (self.old.kl(distribution) * self.weights).sum()])

    def fisher(self, direction: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The Fisher matrix of the query action distributions, weighted as the KL is."""
        return tuple(self.weights.unsqueeze(-1) * part for part in self.old.fisher(direction))


def meta_step(policy: Policy, params: Params, data: MetaBatch, config: Config) -> tuple[Params, dict[str, float]]:
    """One trust-region step on the shared parameters, with its diagnostics.

    Every sum over tasks is taken shard by shard, on any number of threads and processes, and added in order: the
    result does not depend on their number.

    Raises:
        NonFiniteError: the loss, its gradient or the step is not finite.
    """
    rule = config.rule(policy)

    def project(theta: Tensor) -> Tensor:
        return flatten(policy.project(unflatten(theta, params)))

    def objectives(gathered: MetaBatch) -> list[Objective]:
        return [
            Objective(policy, rule, shard, params, data.split.n_tasks, config.credit) for shard in gathered.shards()
        ]

    with on_threads(config.threads) as each:
        sums, shards = Sums(each, data.split), objectives(data)
        curved = objectives(data.thinned(config.curvature_fraction)) if config.curvature_fraction < 1 else shards
        region = TrustRegion(config.max_kl, config.cg_iterations, config.cg_damping)
        theta, diagnostics = trust_region_step(flatten(params), shards, curved, project, region, sums)
        entropy = sums.of(lambda shard: (shard.old.entropy() * shard.weights).sum(), shards)
        adaptation_kl = sums.of(lambda shard: shard.adaptation_kl(), shards)
    diagnostics |= {"policy/entropy": float(entropy), "policy/adaptation_kl": float(adaptation_kl)}
    return unflatten(theta, params), diagnostics


@plain_torch()
def train(config: Config, source: TaskFamily, run: Run, network: Any = None) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one.

    `network` is one's own in Python for the policy (`metarl.nets.module.make_network`); `load` wants it again.
    """
    key, policy = Key(run.seed)("maml-trpo"), meta_policy_gradient.begin(config, source, run, network)
    params = on(policy.init(key("init").torch()), run.device)
    restored = run.restore({"params": params})
    if restored is not None:
        params = policy.project(on(restored[1]["params"], run.device))
    batches = MetaBatches(config, source, policy, key, run.ranks, run.device)
    with run.loop(
        config.iterations, checkpoint_every=config.checkpoint_every, state=lambda: {"params": params}
    ) as loop:
        for iteration in loop:
            started = time.perf_counter()
            data = batches.gather(params, iteration)
            sampled = time.perf_counter()
            with batches.blamed(data):
                params, metrics = meta_step(policy, params, data, config)
            timings = {"sampling_s": sampled - started, "update_s": time.perf_counter() - sampled}
            metrics |= data.metrics() | batches.validation(params, iteration, run.seed)
            loop.log(metrics, timings)


def load(run: Run, source: TaskFamily, network: Any = None) -> Adapting:
    """The agent of a run, from its last checkpoint; see `metarl.learning.meta_policy_gradient.load`."""
    return meta_policy_gradient.load(run, source, network)
