"""ProMP (Rothfuss et al. 2019): an initialisation that one policy gradient adapts, meta-learned by proximal steps.

For tasks i with support episodes D_i gathered by pi_theta_old and query episodes D'_i by pi_phi_i(theta_old),

    phi_i(theta) = theta - alpha grad_theta L(theta; D_i),   L = -mean_t  pi_theta / pi_theta_old (a_t | s_t)  A_t
    minimise  mean_i  -mean_t min(rho_t A'_t, clip(rho_t, 1 - c, 1 + c) A'_t)  +  eta KL_i,
    rho_t = pi_phi_i(theta) / pi_phi_i(theta_old) (a'_t | s'_t),    KL_i = mean_t KL(pi_theta_old || pi_theta) on D_i,

by several steps of Adam on the same data. The ratio in L is the low-variance-curvature surrogate: its gradient is
that of MAML's loss, but the gradient through it also credits theta for the support data it gathers, which a policy
gradient's log-probability does not (`metarl.ops.surrogates.importance_ratio`). With K inner steps each has a ratio
and a KL of its own, to the policy that gathered its data. Then eta is halved or doubled where the KL is off target.

`--credit` has theta credited for its support data in other ways, the outer steps being the same: E-MAML (Stadie et al.
2018) by what the adapted policies earn, MAML-PPO not at all; presets `e-maml` and `maml-ppo`, which have no KL. The
objective with all three is `metarl.learning.proximal`.

Advantages, evaluation and units are those of MAML-TRPO. Deviations from the authors' code (jonasrothfuss/ProMP):
actions are in units of their bound, there in tenths of it, so the inner step size and deviations mean other things
(see `Config`); the deviation has a least value, to which every step is put back; means weigh tasks equally.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from metarl.ambient import plain_torch
from metarl.learning import meta_policy_gradient
from metarl.learning.gradient_adaptation import Adapting
from metarl.learning.meta_batch import MetaBatch
from metarl.learning.meta_policy_gradient import MetaBatches, Settings
from metarl.learning.proximal import Credit, objectives
from metarl.learning.settings import check_range
from metarl.meta.shards import Sums, on_threads
from metarl.nets.params import Params, flatten, on, unflatten
from metarl.nets.policies import Policy
from metarl.ops import finite
from metarl.ops.surrogates import adapted_penalty
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
    credit: Credit = "ratio"
    """How theta is credited for the support data that it gathers: ratio, each action by its own advantage, through the
    inner step (ProMP); returns, all actions by what the adapted policy earns (E-MAML, Stadie et al. 2018); none
    (MAML-PPO). The latter two adapt by the score function."""
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
    "e-maml": Config(credit="returns", kl_penalty=0.0, kl_target=0.0),
    "maml-ppo": Config(credit="none", kl_penalty=0.0, kl_target=0.0),
}
PURPOSES = {
    "e-maml": "E-MAML, on points and other small problems; elsewhere --credit returns --kl-penalty 0",
    "maml-ppo": "MAML-PPO, on points and other small problems; elsewhere --credit none --kl-penalty 0",
}


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
        shards = objectives(policy, rule, data, like, config.credit)
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
    surrogate, exploration, outer_kl, clipped, *inner_kls, entropy = measured
    adapted = [adapted_penalty(eta, kl, config.kl_target) for eta, kl in zip(penalties, inner_kls, strict=True)]
    explored = {"policy/exploration": exploration} if config.credit == "returns" else {}
    return adapted if config.kl_target else penalties, explored | {
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
