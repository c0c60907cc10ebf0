"""PPO (Schulman et al. 2017) by Stable-Baselines3, on a family's task mixture and in our run folders.

An iteration is what one round of `PPO.learn` does: collect `episodes` horizons in each of `envs`
environments, then several epochs of minibatches. Every iteration begins all environments anew, and every
episode has a fresh training task, so nothing but the networks, their optimiser and the scale of the rewards
outlives an iteration; those are what a checkpoint holds, as plain tensors. What Stable-Baselines3 draws within one
comes from generators that the iteration's key seeds. So a resumed training is the same bit for bit, as with our own
learners.

Its actor becomes one of our policies (`actor`), which adapts and is judged as every other.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize
from torch import Tensor, nn

from metarl.errors import NonFiniteError, UserError
from metarl.integrations.sb3_env import SB3VecEnv
from metarl.learning.footprint import Footprint, dense
from metarl.learning.loading import load_params
from metarl.learning.settings import check_range
from metarl.nets.params import Params
from metarl.nets.policies import CategoricalPolicy, GaussianPolicy, mlp_policy, project_std
from metarl.ops import finite
from metarl.parallel import intra_op_threads
from metarl.runs.run import Run
from metarl.sampling.episodes import episode_bytes, flat_size
from metarl.seeding import Key, keyed_globals
from metarl.tasks import TaskFamily

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
DIAGNOSTICS = {  # Stable-Baselines3's names and ours
    "train/approx_kl": "policy/approximate_kl",
    "train/clip_fraction": "policy/clip_fraction",
    "train/policy_gradient_loss": "policy/loss",
    "train/std": "policy/std",
    "train/value_loss": "value/loss",
    "train/explained_variance": "value/explained_variance",
}


@dataclass(frozen=True)
class Actor:
    """The policy network of an actor-critic.

    Where no source is named, the value was chosen on validation tasks.
    """

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the actor, and of the critic (Stable-Baselines3: 64 64)."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation of the hidden layers (Stable-Baselines3: tanh)."""
    init_std: float = 1.0
    """Initial standard deviation of the actions, in units of their bound (Stable-Baselines3: 1)."""
    min_std: float = 1e-6
    """Least standard deviation; in training it is put back to this after each update (Finn et al. 2017: 1e-6)."""

    def __post_init__(self) -> None:
        check_range(self, "init_std", "min_std", above=0)
        if self.init_std < self.min_std:
            raise UserError(f"--init-std is {self.init_std}; it must be at least --min-std, {self.min_std}")
        check_range(self, "hidden", least=1)

    def policy(self, family: TaskFamily) -> GaussianPolicy | CategoricalPolicy:
        """Our policy of the same function."""
        return mlp_policy(
            family.observation_space, family.action_space, self.hidden, self.activation, self.init_std, self.min_std
        )

    def footprint(self, family: TaskFamily) -> Footprint:
        """What a training needs at least: actor and critic."""
        inputs, outputs = flat_size(family.observation_space), flat_size(family.action_space)
        return Footprint(dense((inputs, *self.hidden, outputs)) + dense((inputs, *self.hidden, 1)), 0)

    def keywords(self) -> dict[str, Any]:
        """What Stable-Baselines3's MlpPolicy is made with."""
        return {
            "net_arch": list(self.hidden),
            "activation_fn": ACTIVATIONS[self.activation],
            "log_std_init": math.log(self.init_std),
        }

    def params(self, state: Mapping[str, Tensor]) -> Params:
        """The parameters of `policy`, within its bounds, from the state_dict of Stable-Baselines3's, on the CPU."""
        layers = [f"mlp_extractor.policy_net.{2 * i}" for i in range(len(self.hidden))] + ["action_net"]
        params = {}
        for i, layer in enumerate(layers):
            params[f"{i}.weight"] = state[f"{layer}.weight"].detach().cpu().T.contiguous()
            params[f"{i}.bias"] = state[f"{layer}.bias"].detach().cpu().clone()
        if "log_std" in state:
            params["log_std"] = state["log_std"].detach().cpu().clone()
        return project_std(params, self.min_std)

    def initial(self, family: TaskFamily, key: Key) -> dict[str, Tensor]:
        """The state_dict of a fresh MlpPolicy of Stable-Baselines3: orthogonal, the last layer nearly 0."""
        with keyed_globals(key):
            made = ActorCriticPolicy(family.observation_space, family.action_space, lambda _: 0.0, **self.keywords())
        return dict(made.state_dict())


@dataclass(frozen=True)
class Config(Actor):
    """Settings of PPO. Where no source is named, the value was chosen on validation tasks."""

    iterations: int = 100
    """Rounds of collecting and updating."""
    envs: int = 40
    """Environments side by side, each with a task of its own."""
    episodes: int = 1
    """Horizons that each environment is run for, an iteration."""
    epochs: int = 10
    """Passes over an iteration's data (Stable-Baselines3: 10)."""
    minibatches: int = 16
    """Gradient steps a pass."""
    step_size: float = 1e-3
    """Of Adam (Stable-Baselines3: 3e-4)."""
    clip: float = 0.2
    """Clipping of the probability ratio (Schulman et al. 2017: 0.2)."""
    gamma: float = 0.99
    """Discount of the training (Stable-Baselines3: 0.99)."""
    gae_lambda: float = 0.95
    """Lambda of the generalised advantage estimates (Stable-Baselines3: 0.95)."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus (Stable-Baselines3: 0)."""
    value_weight: float = 0.5
    """Weight of the critic's loss (Stable-Baselines3: 0.5)."""
    max_gradient_norm: float = 0.5
    """Clipping of the gradient's norm (Stable-Baselines3: 0.5)."""
    normalise_rewards: bool = True
    """Divide rewards by the running deviation of the discounted return (Stable-Baselines3's VecNormalize)."""
    validate_every: int = 0
    """Evaluate on validation tasks every so many iterations; 0 never. Not counted as training time."""
    checkpoint_every: int = 10
    """Iterations between checkpoints."""
    threads: int = 1
    """Threads of torch and of the stepping."""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = ("iterations", "envs", "episodes", "epochs", "minibatches", "checkpoint_every", "threads")
        check_range(self, *whole, least=1)
        check_range(self, "step_size", "clip", "max_gradient_norm", above=0)
        check_range(self, "gamma", "gae_lambda", least=0, most=1)
        check_range(self, "entropy_weight", "value_weight", "validate_every", least=0)

    def footprint(self, family: TaskFamily) -> Footprint:
        """What a training needs at least: actor and critic, and an iteration's steps."""
        return replace(super().footprint(family), data=self.envs * self.episodes * episode_bytes(family))


class Silent(BaseCallback):
    """Lets Stable-Baselines3 collect undisturbed."""

    def _on_step(self) -> bool:
        return True


def make_model(config: Config, vec: VecNormalize, horizon: int, device: str) -> PPO:
    """Stable-Baselines3's PPO on an environment; its networks come from the global generators.

    Its optimiser raises NonFiniteError for a gradient or a parameter that is not finite.
    """
    steps = horizon * config.episodes
    model = PPO(
        "MlpPolicy",
        vec,
        learning_rate=config.step_size,
        n_steps=steps,
        batch_size=max(2, math.ceil(steps * config.envs / config.minibatches)),
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip,
        ent_coef=config.entropy_weight,
        vf_coef=config.value_weight,
        max_grad_norm=config.max_gradient_norm,
        stats_window_size=steps * config.envs,  # so that no episode of an iteration is left out
        policy_kwargs=config.keywords(),
        device=device,
    )
    model.set_logger(Logger(folder=None, output_formats=[]))
    weights = dict(model.policy.named_parameters())
    model.policy.optimizer.register_step_pre_hook(lambda *_: finite.check_gradient(weights))
    model.policy.optimizer.register_step_post_hook(lambda *_: finite.check_tensors(weights, "after the step, "))
    return model


def train(
    config: Config, family: TaskFamily, run: Run, key: Key, validate: Callable[[Params], dict[str, float]]
) -> Params:
    """Train until `config.iterations`, from the run's last checkpoint if there is one.

    Args:
        config: how.
        family: whose training tasks are the mixture.
        run: where to log and to keep `{"policy": state_dict, "optimiser": state_dict, "reward_scale": ...}`.
        key: names the streams.
        validate: what there is to say of an actor on validation tasks, every `config.validate_every` iterations.

    Returns:
        The actor's parameters.
    """
    env = family.make_vec(family.sample(config.envs, key("tasks").numpy()), threads=config.threads)
    rows = SB3VecEnv(env, mixture=True)
    vec = VecNormalize(VecMonitor(rows), norm_obs=False, norm_reward=config.normalise_rewards, gamma=config.gamma)
    with keyed_globals(key("init")):
        model = make_model(config, vec, family.horizon, run.device)

    def state() -> dict[str, Any]:
        scale = {name: float(getattr(vec.ret_rms, name)) for name in ("mean", "var", "count")}
        return {
            "policy": dict(model.policy.state_dict()),
            "optimiser": model.policy.optimizer.state_dict(),
            "reward_scale": scale,
        }

    restored = run.restore(state() | {"optimiser": model.policy.optimizer})
    if restored is not None:
        model.policy.load_state_dict(restored[1]["policy"])
        model.policy.optimizer.load_state_dict(restored[1]["optimiser"])
        for name, value in restored[1]["reward_scale"].items():
            setattr(vec.ret_rms, name, value)
    project(model, config)

    loop = run.loop(config.iterations, checkpoint_every=config.checkpoint_every, state=state)
    with loop, intra_op_threads(config.threads):
        for iteration in loop:
            at = key("iteration", iteration)
            with keyed_globals(at("sb3")):
                metrics, timings = iterate(model, vec, config, at)
            if config.validate_every and (iteration + 1) % config.validate_every == 0:
                metrics |= validate(config.params(model.policy.state_dict()))
            loop.log(metrics, timings)
    vec.close()
    return config.params(model.policy.state_dict())


def project(model: PPO, config: Config) -> None:
    """Put the deviation of continuous actions back to its least; changes the model in place."""
    if hasattr(model.policy, "log_std"):
        with torch.no_grad():
            model.policy.log_std.clamp_(min=math.log(config.min_std))


def iterate(model: PPO, vec: VecNormalize, config: Config, key: Key) -> tuple[dict[str, float], dict[str, float]]:
    """One round on fresh tasks; returns diagnostics, and seconds.

    What is undefined is left out: the mean return where no episode ended, the explained variance where the returns do
    not vary.

    Raises:
        NonFiniteError: the environments, the policy or its update gave a number that is not finite.
    """
    try:
        with finite.refusals_of_torch():
            return _iterate(model, vec, config, key)
    except NonFiniteError as error:
        raise _with_rollout(error, model) from None


def _with_rollout(error: NonFiniteError, model: PPO) -> NonFiniteError:
    """The error with what the environments were seen to do in this iteration, or the one that failed was."""
    buffer = model.rollout_buffer
    for name in ("observations", "actions", "rewards", "advantages", "returns"):
        values = getattr(buffer, name)
        error.data[name] = values if error.row is None else values[: buffer.pos, error.row]
    return error


def _iterate(model: PPO, vec: VecNormalize, config: Config, key: Key) -> tuple[dict[str, float], dict[str, float]]:
    started = time.perf_counter()
    vec.seed(key("env").integer())
    model._last_obs = None  # begin all episodes anew
    _, callback = model._setup_learn(0, Silent(), reset_num_timesteps=False)
    episodes = model.ep_info_buffer = deque(maxlen=model._stats_window_size)
    model.collect_rollouts(vec, callback, model.rollout_buffer, model.n_steps)
    sampled = time.perf_counter()
    model.train()
    project(model, config)
    logged = model.logger.name_to_value
    metrics = {ours: float(logged[theirs]) for theirs, ours in DIAGNOSTICS.items() if theirs in logged}
    metrics["policy/entropy"] = -float(logged["train/entropy_loss"])
    metrics["episodes/steps"] = model.n_steps * vec.num_envs  # all are taken: what ends begins anew
    finished = [episode["r"] for episode in episodes]
    if finished:
        metrics["return/mean"] = float(np.mean(finished))
    if np.var(model.rollout_buffer.returns) == 0:
        metrics.pop("value/explained_variance", None)
    return metrics, {"sampling_s": sampled - started, "update_s": time.perf_counter() - sampled}


def load_actor(run: Run, actor: Actor, family: TaskFamily) -> Params:
    """The actor's parameters from a run's last checkpoint; no code of Stable-Baselines3 is needed for it.

    Raises:
        UserError: the run has no checkpoint yet, or it does not fit the family.
    """
    return load_params(run, actor.policy(family), family.name, lambda state: actor.params(state["policy"]))
