"""RL² (Duan et al. 2016; Wang et al. 2016): an agent whose memory is the learning algorithm.

A trial is several episodes of one unknown task in a row. The agent sees, besides the observation, its
previous action, the previous reward and whether an episode has just ended; its recurrent state persists
from one episode of the trial to the next and is zero at the start of a trial. Ordinary reinforcement
learning on whole trials then trains it to explore, to remember and to exploit. Here that is PPO:

    minimise  mean_t -min(rho_t A_t, clip(rho_t, 1 - c, 1 + c) A_t) + w (V_t - R_t)^2 / 2 - b H(pi_t),
    rho_t = pi(a_t | h_t) / pi_old(a_t | h_t),   R_t = A_t + V_old_t,

with generalised advantage estimates A_t over the whole trial: they flow across the ends of its episodes,
terminated or truncated, and stop at its end, which is terminal.

Evaluation: nothing but acting. The score after k bits of adaptation is the return of episode k + 1 of a
trial, for which k episodes were consumed; a bandit's trial is one episode and has one score.

Deviations: PPO in place of the paper's TRPO, as in its public reproductions; the previous reward enters
as it is, whatever `normalise_rewards` does to the rewards learned from.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.envs.wrappers.trials import Trials
from metarl.errors import NonFiniteError, UserError
from metarl.learning.contract import Budget, Scores, mean_steps
from metarl.learning.loading import load_params
from metarl.learning.settings import check_range
from metarl.nets.actor_critic import RecurrentPolicy, recurrent_policy
from metarl.nets.params import Params
from metarl.nets.policies import MIN_STD
from metarl.ops import finite, returns
from metarl.ops.surrogates import clipped_surrogate
from metarl.parallel import intra_op_threads
from metarl.runs.run import Run
from metarl.sampling.episodes import Episodes
from metarl.sampling.recording import Recorder, Recording
from metarl.sampling.rollout import Watch, run_episodes
from metarl.seeding import Key
from metarl.tasks import TaskFamily, Tasks, TaskVectorEnv

EVALUATION_STEPS = 1_000_000  # environment steps held at once when a curve is measured


@dataclass(frozen=True)
class Config:
    """Settings of RL². Where no source is named, the value comes from short runs on Bernoulli bandits."""

    iterations: int = 350
    """Updates."""
    trials: int = 2500
    """Trials an update, each of a fresh task (25,000 steps of the default bandit; Duan et al. 2016: 250,000,
    pytorch_rl2: 240,000)."""
    trial_episodes: int = 0
    """Episodes a trial; 0 takes the family's own number, or 2 where it has none (VariBAD: 2 on MuJoCo)."""
    cell: Literal["gru", "lstm"] = "gru"
    """The recurrent layer (Duan et al. 2016: GRU)."""
    hidden: int = 128
    """Its width (Duan et al. 2016: 256; VariBAD: 128)."""
    embedding: int = 0
    """Width of a tanh layer between input and recurrent layer; 0 for none."""
    head: tuple[int, ...] = ()
    """Widths of tanh layers between recurrent layer and action or value (VariBAD: 128)."""
    layer_norm: bool = False
    """Normalise what enters (where there is an embedding) and leaves the recurrent layer (pytorch_rl2: within it)."""
    init_std: float = 1.0
    """Initial standard deviation of continuous actions, in units of their bound."""
    gamma: float = 0.99
    """Discount (Duan et al. 2016)."""
    gae_lambda: float = 0.3
    """Lambda of the generalised advantage estimates (Duan et al. 2016)."""
    clip: float = 0.1
    """How far the probability ratio counts from 1 (pytorch_rl2 and VariBAD: 0.1)."""
    epochs: int = 4
    """Passes over the data of an update (pytorch_rl2: 8; VariBAD: 2)."""
    minibatches: int = 10
    """Gradient steps a pass."""
    step_size: float = 2e-3
    """Of Adam (pytorch_rl2: 2e-4; VariBAD: 7e-4)."""
    halve_every: int = 100
    """Iterations in which the step size and the entropy bonus halve, smoothly; 0 keeps them."""
    value_weight: float = 0.5
    """Of the critic's squared error, w."""
    entropy_weight: float = 0.0
    """Of the entropy bonus, b (pytorch_rl2 and VariBAD: 0.01)."""
    max_gradient_norm: float = 0.5
    """Gradients are scaled down to this norm (VariBAD: 0.5)."""
    normalise_advantages: bool = True
    """Give the advantages of an update zero mean and unit deviation (pytorch_rl2: no)."""
    normalise_rewards: bool = False
    """Divide rewards by the running deviation of the discounted return (VariBAD: yes)."""
    chunk: int = 0
    """Steps gradients flow back (truncated back-propagation through time); 0 for the whole trial."""
    validate_every: int = 0
    """Evaluate on validation tasks every so many iterations; 0 never. Not counted as training time."""
    validation_tasks: int = 1000
    """Tasks of each validation, a trial each."""
    checkpoint_every: int = 10
    """Iterations between checkpoints."""
    threads: int = 1
    """Intra-op threads, of no more cores than are idle; results repeat for a fixed number."""

    def __post_init__(self) -> None:
        whole = ("iterations", "trials", "hidden", "epochs", "minibatches", "threads", "checkpoint_every")
        check_range(self, *whole, "head", "validation_tasks", least=1)
        check_range(self, "clip", "step_size", "max_gradient_norm", above=0)
        check_range(self, "init_std", least=MIN_STD)
        check_range(self, "gamma", "gae_lambda", least=0, most=1)
        check_range(self, "trial_episodes", "embedding", "halve_every", "chunk", "validate_every", least=0)
        check_range(self, "value_weight", "entropy_weight", least=0)
        if self.minibatches > self.trials:
            raise UserError(f"--minibatches is {self.minibatches}; it must be at most --trials, {self.trials}")


_PAPER = Config(
    iterations=1000,
    hidden=256,
    layer_norm=True,
    epochs=8,
    step_size=2e-4,
    halve_every=0,
    entropy_weight=0.01,
    normalise_advantages=False,
)
DEFAULTS = {
    # n = 10 pulls.
    "bandit": Config(),
    # For 2 cores and half an hour: trials of 100 steps, 25,000 steps an update. On a CPU the LSTM is the faster cell.
    "long": Config(iterations=2000, trials=250, cell="lstm", halve_every=400, normalise_rewards=True),
    # 10 episodes of 10 steps: 240,000 steps an update, after pytorch_rl2, which has minibatches of 480 trials.
    "mdp": replace(_PAPER, trials=2400, minibatches=24, normalise_rewards=True, normalise_advantages=True),
    # Minutes on a CPU; no embedding, no hidden layers.
    "navigation": Config(
        iterations=200,
        trials=40,
        trial_episodes=4,
        cell="lstm",
        init_std=0.5,
        gamma=0.97,
        gae_lambda=0.9,
        minibatches=4,
        step_size=1e-3,
        halve_every=60,
        normalise_rewards=True,
    ),
    # VariBAD's RL² baseline. There 16 workers take 200 to 800 steps each before an update, for 100 million steps in
    # all, here 40 whole trials, 16 million; there observation, action and reward are embedded apart (32, 16, 16, relu),
    # and the critic has a clipped Huber loss.
    "mujoco": Config(
        iterations=1000,
        trials=40,
        trial_episodes=2,
        embedding=64,
        head=(128,),
        gamma=0.97,
        gae_lambda=0.9,
        epochs=2,
        minibatches=4,
        step_size=7e-4,
        halve_every=0,
        entropy_weight=0.01,
        normalise_rewards=True,
    ),
    # Duan et al. 2016 (TRPO, up to 1,000 updates, from memory) by way of pytorch_rl2: 24,000 trials of 10 pulls are its
    # 240,000 steps. There up to 12,000 updates, minibatches of 480 trials, a recurrent network of its own for the
    # critic, a Huber loss, weight decay .01, and no clipping of gradients.
    "paper": replace(_PAPER, trials=24_000, minibatches=24),
}


@dataclass(frozen=True)
class Play:
    """N = T x E trials as they were acted; time first, as the recurrent kernels want it."""

    episodes: Episodes  # (T, E, H, ...), an "episode" being a whole trial, its observation that of `Trials`
    inner: int  # episodes a trial
    log_prob: Tensor  # (H, N) float32, of the actions taken
    values: Tensor  # (H, N) float32, the critic's
    states: Tensor  # (C, N, state_size) float32, the memory at the start of every chunk

    def returns(self) -> Tensor:
        """Undiscounted return of every inner episode, `(T, E, inner)` float64."""
        return self._by_episode(self.episodes.rewards.double() * self.episodes.valid)

    def steps(self) -> Tensor:
        """Steps that every inner episode took, `(T, E, inner)` int64."""
        return self._by_episode(self.episodes.valid.long())

    def _by_episode(self, values: Tensor) -> Tensor:
        """Sums of `values (T, E, H)` over the steps of every inner episode."""
        ended = self.episodes.obs[..., -1]  # at a step: whether the step before ended an inner episode
        index = ended.cumsum(-1).long()
        return torch.zeros(*values.shape[:2], self.inner, dtype=values.dtype).scatter_add_(-1, index, values)

    def regret(self, tasks: Tasks) -> NDArray[np.float64]:
        """Mean of a bandit's best arm minus mean of the arm pulled, `(T, E, n)`.

        Raises:
            UserError: the tasks are no bandits.
        """
        mean = tasks.arrays.get("mean")
        if mean is None or self.episodes.actions.ndim != 3:
            raise UserError(f"regret is counted on bandits, whose tasks have arms with means, not {list(tasks.arrays)}")
        pulled = np.take_along_axis(mean[:, None, :], self.episodes.actions.numpy(), axis=2)
        lost: NDArray[np.float64] = mean.max(1)[:, None, None] - pulled
        return lost


def play(
    env: TaskVectorEnv,
    policy: RecurrentPolicy,
    params: Params,
    key: Key,
    chunk: int = 0,
    watch: Watch | None = None,
    likeliest: bool = False,
) -> Play:
    """One trial in every row of a vector of `Trials`.

    Args:
        env: T tasks x E trials; it is reset first.
        policy: called with `params`; its memory starts from zero.
        params: one set.
        key: names the streams of start states and actions.
        chunk: steps between two memories that are kept; 0 keeps the first only.
        watch: called after the reset and after every step.
        likeliest: take the most likely actions instead of drawing.

    Raises:
        NonFiniteError: what the environments or the policy say is not finite.
    """
    n, horizon = env.num_envs, env.family.horizon
    chunk = chunk or horizon
    device = next(iter(params.values())).device
    streams = env.tasks.streams(key("action"))
    noise = torch.from_numpy(np.concatenate([policy.noise(rng, (env.replicas, horizon)) for rng in streams])).to(device)
    log_prob, values = torch.zeros(2, horizon, n, device=device)
    states = torch.zeros(math.ceil(horizon / chunk), n, policy.state_size, device=device)
    state = policy.start(n, device)

    def act(obs: Tensor, t: int) -> Tensor:
        nonlocal state
        if t % chunk == 0:
            states[t // chunk] = state
        decision = policy.step(params, obs.reshape(n, -1).to(device), state)
        said = decision.distribution
        actions: Tensor = said.mode() if likeliest else said.sample(noise[:, t])
        log_prob[t], values[t] = said.log_prob(actions), decision.value
        state = decision.state
        return actions.cpu()

    with torch.no_grad():
        episodes = run_episodes(env, act, key, watch)
    for what, numbers in (("a value of the critic", values), ("an action's log-probability", log_prob)):
        finite.check_rows({what: numbers.T.reshape(len(env.tasks), -1)}, what, env.tasks)
    inner = env.family.episodes if isinstance(env.family, Trials) else 1
    return Play(episodes, inner, log_prob, values, states)


@dataclass(frozen=True)
class RewardScale:
    """Running moments of the discounted return so far, whose deviation rewards are divided by.

    As Stable-Baselines3's VecNormalize and VariBAD do it, with the count of a whole update at once, but without
    cutting the divided rewards to +-10.
    """

    count: float = 0.0
    mean: float = 0.0
    square: float = 0.0  # sum of squared distances from the mean

    def update(self, rewards: Tensor, valid: Tensor, gamma: float) -> RewardScale:
        """The moments with the steps of an update added: `rewards (N, H)`, `valid (N, H)`."""
        so_far = returns.discount((rewards * valid).flip(-1), gamma).flip(-1)[valid]
        count, mean = float(so_far.numel()), float(so_far.mean())
        total, shift = self.count + count, mean - self.mean
        square = float(((so_far - mean) ** 2).sum()) + shift * shift * self.count * count / total
        return RewardScale(total, self.mean + shift * count / total, self.square + square)

    @property
    def deviation(self) -> float:
        """Standard deviation; 1 before there is any."""
        return math.sqrt(self.square / self.count) if self.square > 0 else 1.0


@dataclass(frozen=True)
class Batch:
    """S sequences of L steps: whole trials, or chunks of them."""

    obs: Tensor  # (L, S, D) float32
    actions: Tensor  # (L, S) int64, or (L, S, A) float32
    log_prob: Tensor  # (L, S) float32, when acting
    advantages: Tensor  # (L, S) float32, 0 where invalid
    targets: Tensor  # (L, S) float32, of the critic
    valid: Tensor  # (L, S) float32, 1 for steps that were really taken
    states: Tensor  # (S, state_size) float32, the memory before the first step

    def __len__(self) -> int:
        return self.states.shape[0]

    def take(self, rows: Tensor) -> Batch:
        """Some of the sequences."""
        fields = {name: value.index_select(1, rows) for name, value in vars(self).items() if name != "states"}
        return Batch(**fields, states=self.states[rows])


def prepare(played: Play, config: Config, scale: RewardScale) -> tuple[Batch, float]:
    """What PPO learns from: advantages over whole trials, cut into chunks. Also the critic's explained variance."""
    episodes = played.episodes
    valid = episodes.valid.flatten(0, 1)  # (N, H)
    rewards = episodes.rewards.flatten(0, 1).double() / (scale.deviation if config.normalise_rewards else 1.0)
    values = played.values.T.cpu().double()
    advantages = returns.gae(rewards, values, valid, config.gamma, config.gae_lambda)
    targets = advantages + values * valid
    explained = float(returns.explained_variance(values, targets, valid))
    if config.normalise_advantages:
        advantages = returns.normalise(advantages, valid, (0, 1))
    device, length = played.log_prob.device, config.chunk or valid.shape[1]

    def cut(x: Tensor) -> Tensor:
        """`(N, H, ...)` to `(L, C * N, ...)`, padded with zeros at the end."""
        x = x.transpose(0, 1).to(device)
        missing = -x.shape[0] % length
        if missing:
            x = torch.cat([x, x.new_zeros(missing, *x.shape[1:])])
        return x.reshape(-1, length, *x.shape[1:]).transpose(0, 1).flatten(1, 2)

    batch = Batch(
        obs=cut(episodes.obs.flatten(0, 1)),
        actions=cut(episodes.actions.flatten(0, 1)),
        log_prob=cut(played.log_prob.T),
        advantages=cut(advantages.float()),
        targets=cut(targets.float()),
        valid=cut(valid.float()),
        states=played.states.flatten(0, 1),
    )
    return batch, explained


def ppo_loss(policy: RecurrentPolicy, params: Params, batch: Batch, config: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, a mean over valid steps, and its diagnostics."""
    decision = policy.sequence(params, batch.obs, batch.states)
    log_prob = decision.distribution.log_prob(batch.actions)
    count = batch.valid.sum().clamp(min=1)

    def mean(x: Tensor) -> Tensor:
        return (x * batch.valid).sum() / count

    surrogate = mean(clipped_surrogate(log_prob, batch.log_prob, batch.advantages, config.clip))
    value_loss = 0.5 * mean((decision.value - batch.targets) ** 2)
    entropy = mean(decision.distribution.entropy())
    loss = -surrogate + config.value_weight * value_loss - config.entropy_weight * entropy
    with torch.no_grad():
        log_ratio = log_prob - batch.log_prob
        diagnostics = {
            "policy/surrogate": surrogate.detach(),
            "policy/entropy": entropy.detach(),
            "policy/approximate_kl": mean(torch.expm1(log_ratio) - log_ratio),
            "policy/clip_fraction": mean((torch.expm1(log_ratio).abs() > config.clip).float()),
            "value/loss": value_loss.detach(),
        }
    return loss, diagnostics


def project(policy: RecurrentPolicy, params: Params) -> None:
    """Put parameters back within the policy's bounds, in place: their optimiser holds these very tensors."""
    with torch.no_grad():
        for name, value in policy.project(params).items():
            params[name].copy_(value)


def update(
    policy: RecurrentPolicy, params: Params, optimiser: torch.optim.Optimizer, batch: Batch, config: Config, key: Key
) -> dict[str, float]:
    """PPO's epochs over one batch; changes `params` in place. Returns diagnostics, means over all gradient steps.

    Raises:
        NonFiniteError: a loss or its gradient is not finite; no step was taken with it. Or a parameter is not, after
            the steps.
    """
    total: dict[str, Tensor] = {}
    leaves = list(params.values())
    steps = 0
    for epoch in range(config.epochs):
        order = torch.from_numpy(key("order", epoch).numpy().permutation(len(batch))).to(batch.states.device)
        for rows in order.tensor_split(config.minibatches):
            loss, diagnostics = ppo_loss(policy, params, batch.take(rows), config)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            norm = torch.nn.utils.clip_grad_norm_(leaves, config.max_gradient_norm)
            diagnostics["policy/gradient_norm"] = norm
            if not (loss.detach() * norm).isfinite():  # one number to wait for, on an accelerator
                try:
                    finite.check_numbers({**diagnostics, "the loss": loss})
                except NonFiniteError as error:
                    raise _with_trials(error, policy, params, batch, rows, config) from None
            with finite.refusals_of_torch():
                optimiser.step()
            project(policy, params)
            for name, value in diagnostics.items():
                total[name] = total.get(name, torch.zeros_like(value)) + value
            steps += 1
    finite.check_tensors(params, "after the update, ")
    return {name: float(value) / steps for name, value in total.items()}


def _with_trials(
    error: NonFiniteError, policy: RecurrentPolicy, params: Params, batch: Batch, rows: Tensor, config: Config
) -> NonFiniteError:
    """The error with the sequences of a minibatch whose loss alone is not finite, and the trials they are of."""
    with torch.no_grad():
        broken = [row for row in rows if not ppo_loss(policy, params, batch.take(row[None]), config)[0].isfinite()]
    error.tasks = sorted({int(row) % config.trials for row in broken})
    error.data = dict(vars(batch.take(torch.stack(broken) if broken else rows)))
    return error


def annealed(config: Config, iteration: int) -> Config:
    """The config with the step size and the entropy bonus of an iteration."""
    left = 0.5 ** (iteration / config.halve_every) if config.halve_every else 1.0
    return replace(config, step_size=config.step_size * left, entropy_weight=config.entropy_weight * left)


@plain_torch()
def train(config: Config, source: TaskFamily, run: Run) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one."""
    family, key = _trials(config, source), Key(run.seed)("rl2")
    policy, scale = _policy(config, family), RewardScale()
    params = {name: value.to(run.device) for name, value in policy.init(key("init").torch()).items()}
    restored = run.restore()
    if restored is not None:
        params = policy.project({name: value.to(run.device) for name, value in restored[1]["params"].items()})
        scale = RewardScale(**restored[1]["reward_scale"])
    optimiser = torch.optim.Adam(
        [value.requires_grad_() for value in params.values()], config.step_size, eps=1e-5, fused=True
    )
    if restored is not None:
        optimiser.load_state_dict(restored[1]["optimiser"])

    def state() -> dict[str, Any]:
        detached = {name: value.detach() for name, value in params.items()}
        return {"params": detached, "optimiser": optimiser.state_dict(), "reward_scale": dict(vars(scale))}

    env = family.make_vec(family.sample(config.trials, key("tasks").numpy()), threads=config.threads)
    loop = run.loop(config.iterations, checkpoint_every=config.checkpoint_every, state=state)
    with loop, intra_op_threads(config.threads):
        for iteration in loop:
            at = key("iteration", iteration)
            started = time.perf_counter()
            env.reset(options={"tasks": family.sample(config.trials, at("tasks").numpy())})
            played = play(env, policy, params, at, config.chunk)
            sampled = time.perf_counter()
            scale = scale.update(
                played.episodes.rewards.flatten(0, 1).double(), played.episodes.valid.flatten(0, 1), config.gamma
            )
            batch, explained = prepare(played, config, scale)
            now = annealed(config, iteration)
            optimiser.param_groups[0]["lr"] = now.step_size
            try:
                metrics = update(policy, params, optimiser, batch, now, at)
            except NonFiniteError as error:
                raise finite.blame(error, env.tasks, error.tasks) from None
            updated = time.perf_counter()
            metrics["value/explained_variance"] = explained
            metrics["episodes/steps"] = int(played.episodes.valid.sum())
            metrics["episodes/unstable"] = int(played.episodes.unstable.sum())
            metrics |= _returns("", played.returns().mean((0, 1)))
            if config.validate_every and (iteration + 1) % config.validate_every == 0:
                tasks = source.fixed("validation", config.validation_tasks)
                scores = Agent(policy, params, config, source).curve(tasks, Budget(0, 1), run.seed)
                metrics |= _returns("validation_", torch.from_numpy(scores.values.mean(0)))
            loop.log(metrics, {"sampling_s": sampled - started, "update_s": updated - sampled})
    env.close()


def _returns(prefix: str, by_episode: Tensor) -> dict[str, float]:
    """Mean return of a trial, and of its first and last episode where it has more than one."""
    found = {f"return/{prefix}trial": float(by_episode.sum())}
    if len(by_episode) > 1:
        found |= {f"return/{prefix}first": float(by_episode[0]), f"return/{prefix}last": float(by_episode[-1])}
    return found


def _trials(config: Config, family: TaskFamily) -> Trials:
    return Trials(family=family, episodes=config.trial_episodes)


def _policy(config: Config, family: Trials) -> RecurrentPolicy:
    return recurrent_policy(
        family.observation_space,
        family.action_space,
        cell=config.cell,
        hidden=config.hidden,
        embedding=config.embedding,
        head=config.head,
        layer_norm=config.layer_norm,
        init_std=config.init_std,
    )


@dataclass(frozen=True)
class Agent:
    """A trained memory.

    Attributes:
        likeliest: take the most likely actions; by default they are drawn, as in training.
    """

    policy: RecurrentPolicy
    params: Params
    config: Config
    family: TaskFamily
    likeliest: bool = False

    @plain_torch()
    def play(self, tasks: Tasks, trials: int, key: Key, watch: Watch | None = None) -> Play:
        """Act in `trials` trials of each task, each from an empty memory."""
        env = _trials(self.config, self.family).make_vec(tasks, trials, threads=self.config.threads)
        with intra_op_threads(self.config.threads):
            played = play(env, self.policy, self.params, key, watch=watch, likeliest=self.likeliest)
        env.close()
        return played

    def film(self, task: Tasks, budget: Budget, seed: int) -> list[Recording]:
        """The first and the last episode of one trial; a bandit's trial is one episode."""
        recorder = Recorder()
        episodes = self.play(task, 1, Key(seed)("rl2", "film"), recorder).episodes
        ended = episodes.obs[0, 0, :, -1].bool() & episodes.valid[0, 0]  # the first step of a later episode
        bounds = [0, *torch.nonzero(ended).flatten().tolist(), int(episodes.valid.sum())]
        count = len(bounds) - 1
        return [
            recorder.cut(f"episode {i + 1} of {count}, one trial" if count > 1 else "one trial", *bounds[i : i + 2])
            for i in sorted({0, count - 1})
        ]

    @plain_torch()
    def curve(self, tasks: Tasks, budget: Budget, seed: int) -> Scores:
        """Mean return of each episode of a trial, over `budget.episodes` fresh trials a task.

        The trial's length is the one trained on, so `budget.steps` has no meaning here.
        """
        family, key = _trials(self.config, self.family), Key(seed)("rl2", "evaluate")
        size = max(1, EVALUATION_STEPS // (budget.episodes * family.horizon))
        values, consumed, regret, bandit = [], [], [], hasattr(self.family, "likelihood")
        for i in range(0, len(tasks), size):
            played = self.play(some := tasks[i : i + size], budget.episodes, key)
            values.append(played.returns().mean(1).numpy())
            consumed.append(played.steps().double().mean(1).numpy().cumsum(1))
            if bandit:
                regret.append(played.regret(some).mean(1))
        what = f"{family.episodes} episodes" if family.episodes > 1 else f"{family.horizon} steps"
        how = ", most likely actions" if self.likeliest else ""
        return Scores(
            values=np.concatenate(values),
            gradient_steps=None,
            env_steps=mean_steps(np.concatenate(consumed)[:, :-1]),
            shots=None,
            kind="return",
            protocol=f"adapts within a trial of {what}{how}; {budget.episodes} fresh trials a score",
            regret=np.concatenate(regret) if bandit else None,
        )


@plain_torch()
def load(run: Run, source: TaskFamily) -> Agent:
    """The agent of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet, or it does not fit the family.
    """
    policy = _policy(run.config, _trials(run.config, source))
    return Agent(policy, load_params(run, policy, source.name), run.config, source)
