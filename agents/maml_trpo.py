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

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.errors import NonFiniteError, UserError
from metarl.learning import gradient_adaptation, policy_gradient
from metarl.learning.contract import Budget
from metarl.learning.gradient_adaptation import Adapting
from metarl.learning.loading import load_params
from metarl.learning.policy_gradient import Batch
from metarl.learning.settings import check_range
from metarl.meta import inner
from metarl.meta.outer import sum_in_order
from metarl.nets.params import Params, flatten, unflatten
from metarl.nets.policies import Policy, mlp_policy
from metarl.ops import finite, trust_region
from metarl.parallel import intra_op_threads
from metarl.runs.run import Run
from metarl.sampling.blocks import Blocks
from metarl.sampling.rollout import rollout
from metarl.seeding import Key
from metarl.tasks import TaskFamily, Tasks, TaskVectorEnv

SHARD = 2  # tasks differentiated together: few enough for the processor's cache, enough to keep operators busy


@dataclass(frozen=True)
class Config:
    """Settings of MAML-TRPO. Where no source is named, the value was chosen on validation tasks."""

    iterations: int = 40
    """Meta-iterations (cbfinn/maml_rl: 100 on 2D navigation, else 800, of which it tests the 100th to 475th)."""
    tasks: int = 20
    """Tasks a meta-batch (cbfinn/maml_rl: tested with 20 on 2D navigation, where its script has 40; elsewhere 40)."""
    episodes: int = 20
    """Episodes a task, for the support set and again for the query set (cbfinn/maml_rl: 20; the half-cheetah that it
    tests at wanted speeds: 10)."""
    inner_steps: int = 1
    """Policy-gradient steps of the inner loop during training (Finn et al. 2017: 1)."""
    inner_step_size: float = 0.1
    """Step size alpha, for actions in units of their bound (Finn et al. 2017: 0.1, on 2D navigation 0.5). ProMP's 0.1
    is for actions in tenths of the bound: here that is 0.001 for the last layer, 0.1 for the others and log_std."""
    order: Literal[1, 2] = 2
    """2 differentiates through the adaptation, 1 ignores its curvature."""
    hidden: tuple[int, ...] = (32, 32)
    """Widths of the policy's hidden layers (ProMP: 64 64; Finn et al. 2017: 100 100)."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation of the hidden layers (ProMP: tanh; Finn et al. 2017: relu)."""
    init_std: float = 1.0
    """Initial standard deviation of the actions, in units of their bound (Finn et al. 2017: 1; ProMP: 0.1)."""
    min_std: float = 0.45
    """Least standard deviation, to which every step, inner or outer, is put back.

    A policy gradient grows with 1 / std, so a fixed step overshoots once it is small.
    """
    gamma: float = 0.99
    """Discount (Finn et al. 2017)."""
    gae_lambda: float = 1.0
    """Lambda of the generalised advantage estimates (Finn et al. 2017: 1)."""
    max_kl: float = 0.02
    """Trust region, nats a step (Finn et al. 2017: 0.01; for half-cheetah directions 0.02)."""
    cg_iterations: int = 10
    """Conjugate-gradient iterations (Schulman et al. 2015)."""
    cg_damping: float = 1e-5
    """Added to the diagonal of the Fisher matrix (rllab)."""
    curvature_fraction: float = 1.0
    """Share of the episodes in the Fisher-vector product; 1 is exact, less is quicker and noisier."""
    validate_every: int = 0
    """Evaluate on validation tasks every so many iterations; 0 never. Not counted as training time."""
    validation_tasks: int = 40
    """Tasks of each validation."""
    checkpoint_every: int = 10
    """Iterations between checkpoints."""
    threads: int = 2
    """Threads of the physics and of the update; they change how long it takes, not what comes out."""

    def __post_init__(self) -> None:
        whole = ("iterations", "tasks", "episodes", "inner_steps", "cg_iterations", "threads", "checkpoint_every")
        check_range(self, *whole, "hidden", least=1)
        check_range(self, "inner_step_size", "init_std", "min_std", "max_kl", above=0)
        if self.init_std < self.min_std:
            raise UserError(f"--init-std is {self.init_std}; it must be at least --min-std, {self.min_std}")
        check_range(self, "gamma", "gae_lambda", least=0, most=1)
        check_range(self, "curvature_fraction", above=0, most=1)
        check_range(self, "cg_damping", "validate_every", least=0)


_PUBLISHED = Config(max_kl=0.01, min_std=1e-6)
DEFAULTS = {
    # Finn et al. 2017: "paper" as on 2D navigation (where 100 iterations do), "mujoco" with the network of ProMP.
    "paper": replace(_PUBLISHED, iterations=500, hidden=(100, 100), activation="relu", inner_step_size=0.5),
    "mujoco": replace(_PUBLISHED, iterations=500, tasks=40, hidden=(64, 64)),
}


@dataclass(frozen=True)
class Adapted:
    """What adapting to a batch of tasks leaves behind."""

    support: list[Batch]  # the data of each inner step
    params: Params  # the last iterate, stacked (T, ...), detached
    query: Batch  # gathered with it

    def shards(self) -> list[Adapted]:
        """The tasks a few at a time."""
        return [self._take(slice(i, i + SHARD)) for i in range(0, len(self.query.weights), SHARD)]

    def _take(self, tasks: slice) -> Adapted:
        params = {name: value[tasks] for name, value in self.params.items()}
        return Adapted(
            [policy_gradient.take(batch, tasks) for batch in self.support],
            params,
            policy_gradient.take(self.query, tasks),
        )

    def thinned(self, fraction: float) -> Adapted:
        """The same tasks with `fraction` of their episodes."""
        n = max(1, round(fraction * self.query.weights.shape[1]))
        return Adapted(
            [policy_gradient.thin(batch, n) for batch in self.support], self.params, policy_gradient.thin(self.query, n)
        )


@dataclass(frozen=True)
class Local:
    """The objective around the current parameters."""

    loss: Tensor  # ()
    gradient: Tensor  # (P,)
    curvature: trust_region.Product  # of the KL


class Objective:
    """The surrogate and the trust region of some tasks, as functions of flat shared parameters.

    Args:
        policy: the agent's.
        rule: the inner loop.
        data: of these tasks.
        like: names and shapes of the shared parameters.
        n_tasks: tasks of the whole meta-batch, over which means are taken; so parts of it add up.
    """

    def __init__(self, policy: Policy, rule: inner.Rule, data: Adapted, like: Params, n_tasks: int) -> None:
        self.policy, self.rule, self.data, self.like = policy, rule, data, like
        self.weights = data.query.weights / n_tasks
        with torch.no_grad():
            self.old = policy.distribution(data.params, data.query.episodes.obs)
            self.old_log_prob = self.old.log_prob(data.query.episodes.actions)

    def distribution(self, theta: Tensor) -> Any:
        """pi_phi(theta) at the query observations, re-adapted differentiably on the stored support."""

        def loss(params: Params, batch: Batch) -> Tensor:
            return policy_gradient.loss(self.policy, params, batch)

        stacked = inner.stack(unflatten(theta, self.like), len(self.weights))
        adapted = inner.adapt(stacked, loss, lambda _, k: self.data.support[k], self.rule)[-1]
        return self.policy.distribution(adapted, self.data.query.episodes.obs)

    def surrogate(self, distribution: Any) -> Tensor:
        """The importance-weighted loss; its gradient at the old parameters is the meta-gradient."""
        log_prob: Tensor = distribution.log_prob(self.data.query.episodes.actions)
        ratio = torch.exp(log_prob - self.old_log_prob)
        return -(ratio * self.data.query.advantages * self.weights).sum()

    def local(self, theta: Tensor) -> Local:
        """Loss, gradient and curvature at the parameters that gathered the data."""
        theta = theta.detach().clone().requires_grad_()
        distribution = self.distribution(theta)
        loss = self.surrogate(distribution)
        (gradient,) = torch.autograd.grad(loss, theta, retain_graph=True)
        curvature = trust_region.gauss_newton_product(distribution.description(), theta, self.fisher)
        return Local(loss.detach(), gradient, curvature)

    def evaluate(self, theta: Tensor) -> Tensor:
        """Surrogate and mean KL from the policies that gathered the query data, `(2,)`."""
        with torch.no_grad():
            distribution = self.distribution(theta)
            return torch.stack([self.surrogate(distribution), (self.old.kl(distribution) * self.weights).sum()])

    def fisher(self, direction: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The Fisher matrix of the query action distributions, weighted as the KL is."""
        return tuple(self.weights.unsqueeze(-1) * part for part in self.old.fisher(direction))


def adapt_to_tasks(
    env: TaskVectorEnv | Blocks, policy: Policy, params: Params, rule: inner.Rule, config: Config, key: Key
) -> Adapted:
    """Act, step, act again: the support data of every inner step, and query data from the result.

    Raises:
        NonFiniteError: an inner step led to parameters that are not finite; their tasks are named.
    """
    support: list[Batch] = []

    def check(current: Params) -> None:
        try:
            finite.check_rows(current, f"a parameter after inner step {len(support)}", env.tasks)
        except NonFiniteError as error:
            raise _with_episodes(error, support, env.tasks) from None

    def collect(current: Params, k: int) -> Batch:
        check(current)
        episodes = rollout(env, policy, current, key("support", k))
        support.append(policy_gradient.prepare(episodes, config.gamma, config.gae_lambda))
        return support[-1]

    def loss(values: Params, batch: Batch) -> Tensor:
        return policy_gradient.loss(policy, values, batch)

    first_order = replace(rule, order=1)  # nothing is differentiated here
    adapted = inner.adapt(inner.stack(params, len(env.tasks)), loss, collect, first_order)[-1]
    check(adapted)
    episodes = rollout(env, policy, adapted, key("query"))
    return Adapted(support, adapted, policy_gradient.prepare(episodes, config.gamma, config.gae_lambda))


def meta_step(
    policy: Policy, params: Params, data: Adapted, rule: inner.Rule, config: Config
) -> tuple[Params, dict[str, float]]:
    """One trust-region step on the shared parameters, with its diagnostics.

    Every sum over tasks is taken shard by shard, on any number of threads, and added in order: the
    result does not depend on the threads. Every candidate is put back within the policy's bounds before it
    is judged, so the trust region holds for the parameters that are taken. Those at a bound that the gradient
    pushes beyond it stay out of the step, or they would use up its KL for nothing (projected Newton, Bertsekas
    1982).

    Raises:
        NonFiniteError: the loss, its gradient or the step is not finite.
    """
    n_tasks, theta = len(data.query.weights), flatten(params)

    def projected(vector: Tensor) -> Tensor:
        return flatten(policy.project(unflatten(vector, params)))

    def objectives(parts: Adapted) -> list[Objective]:
        return [Objective(policy, rule, part, params, n_tasks) for part in parts.shards()]

    with intra_op_threads(1), ThreadPoolExecutor(config.threads) as pool:
        shards = objectives(data)
        local = list(pool.map(lambda shard: shard.local(theta), shards))
        loss, gradient = sum_in_order(part.loss for part in local), sum_in_order(part.gradient for part in local)
        for i, part in enumerate(local):
            shard = range(i * SHARD, min((i + 1) * SHARD, n_tasks))
            _check(part.loss, "the surrogate loss", shard, n_tasks)
            _check(part.gradient, "the meta-gradient", shard, n_tasks)
        beyond = theta - gradient
        free = ((projected(beyond) == beyond) | (projected(beyond) != theta)).to(theta.dtype)
        if config.curvature_fraction < 1:
            thinned = objectives(data.thinned(config.curvature_fraction))
            local = list(pool.map(lambda shard: shard.local(theta), thinned))

        def product(v: Tensor) -> Tensor:
            return free * sum_in_order(pool.map(lambda part: part.curvature(v), local)) + config.cg_damping * v

        def evaluate(candidate: Tensor) -> tuple[float, float]:
            within = projected(candidate)
            found = sum_in_order(pool.map(lambda shard: shard.evaluate(within), shards))
            return float(found[0]), float(found[1])

        solution = trust_region.conjugate_gradient(product, -free * gradient, config.cg_iterations)
        _check(solution.x, "the natural gradient", (), n_tasks)
        scale = math.sqrt(2 * config.max_kl / max(solution.curvature, 1e-12))
        found = trust_region.line_search(evaluate, theta, scale * solution.x, float(loss), config.max_kl)
    entropy = sum_in_order((shard.old.entropy() * shard.weights).sum() for shard in shards)
    diagnostics = {
        "trust_region/kl": found.kl,
        "trust_region/improvement": float(loss) - found.loss,
        "trust_region/accepted": float(found.accepted),
        "trust_region/line_search_steps": found.steps,
        "trust_region/cg_residual": solution.residual,
        "trust_region/gradient_norm": float(gradient.norm()),
        "policy/entropy": float(entropy),
        "baseline/explained_variance_support": data.support[0].explained_variance,
        "baseline/explained_variance_query": data.query.explained_variance,
    }
    return unflatten(projected(found.theta), params), diagnostics


def _with_episodes(error: NonFiniteError, batches: Sequence[Batch], tasks: Tasks) -> NonFiniteError:
    """The error with its tasks and the episodes they were learned from, of each inner step in turn."""
    for k, batch in enumerate(batches):
        for part in ("obs", "actions", "rewards", "valid"):
            error.data[f"{part} {k}"] = getattr(batch.episodes, part)[error.tasks or slice(None)]
    return finite.blame(error, tasks, error.tasks)


def _check(values: Tensor, what: str, tasks: Sequence[int], of: int) -> None:
    """Raise NonFiniteError unless all values are finite; `tasks` are those they are summed over."""
    if not values.isfinite().all():
        raise NonFiniteError(f"{what} is not finite", tasks=tasks, of=of)


@plain_torch()
def train(config: Config, source: TaskFamily, run: Run) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one."""
    family, key = source, Key(run.seed)("maml-trpo")
    policy = _policy(config, family)
    rule = inner.Rule(config.inner_step_size, config.inner_steps, order=config.order, project=policy.project)
    params = policy.init(key("init").torch())
    restored = run.restore()
    if restored is not None:
        params = policy.project(restored[1]["params"])
    env = Blocks(family, family.sample(config.tasks, key("tasks").numpy()), config.episodes, config.threads)
    with run.loop(
        config.iterations, checkpoint_every=config.checkpoint_every, state=lambda: {"params": params}
    ) as loop:
        for iteration in loop:
            at = key("iteration", iteration)
            started = time.perf_counter()
            env.assign(family.sample(config.tasks, at("tasks").numpy()))
            data = adapt_to_tasks(env, policy, params, rule, config, at)
            sampled = time.perf_counter()
            try:
                params, metrics = meta_step(policy, params, data, rule, config)
            except NonFiniteError as error:
                raise _with_episodes(error, [*data.support, data.query], env.tasks) from None
            updated = time.perf_counter()
            metrics["return/before"] = float(data.support[0].episodes.returns().mean())
            metrics["return/after"] = float(data.query.episodes.returns().mean())
            metrics["episodes/steps"] = sum(int(b.episodes.valid.sum()) for b in [*data.support, data.query])
            metrics["episodes/unstable"] = sum(int(b.episodes.unstable.sum()) for b in [*data.support, data.query])
            if config.validate_every and (iteration + 1) % config.validate_every == 0:
                tasks = family.fixed("validation", config.validation_tasks)
                scores = _adapting(policy, params, config, family).curve(tasks, Budget(1, 20), run.seed)
                metrics |= gradient_adaptation.validation_metrics(scores)
            loop.log(metrics, {"sampling_s": sampled - started, "update_s": updated - sampled})


def _policy(config: Config, family: TaskFamily) -> Policy:
    return mlp_policy(
        family.observation_space,
        family.action_space,
        config.hidden,
        config.activation,
        init_std=config.init_std,
        min_std=config.min_std,
    )


def _adapting(policy: Policy, params: Params, config: Config, family: TaskFamily) -> Adapting:
    return Adapting(policy, params, family, config.inner_step_size, config.gamma, config.gae_lambda, config.threads)


@plain_torch()
def load(run: Run, source: TaskFamily) -> Adapting:
    """The agent of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet, or it does not fit the family.
    """
    policy = _policy(run.config, source)
    return _adapting(policy, load_params(run, policy, source.name), run.config, source)
