"""A belief about the task, learned from trials beside the policy that acts on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.learning.belief_bound import BeliefModel
from metarl.learning.belief_settings import BeliefSettings
from metarl.learning.shared_gradient import add_gradients
from metarl.learning.trial_buffer import TrialBuffer
from metarl.nets.actor_critic import RecurrentPolicy
from metarl.nets.belief import Belief
from metarl.nets.params import Params, below
from metarl.ops import finite
from metarl.ops.running_moments import RunningMoments
from metarl.runs.run import Run
from metarl.sampling.trials import TrialEpisodes
from metarl.seeding import Key


class BeliefLearner:
    """The decoders, the optimiser, and all that learning a belief remembers from one update to the next.

    Args:
        policy: whose memory is a belief.
        params: the policy's; those of its memory are changed in place by `learn`.
        settings: of the bound.
        run: whose last checkpoint, if there is one, it goes on from; its ranks share the trials of a step.
        key: names the stream of the decoders' initial parameters.
        horizon: H, the most steps of a trial.
    """

    def __init__(
        self, policy: RecurrentPolicy, params: Params, settings: BeliefSettings, run: Run, key: Key, horizon: int
    ) -> None:
        encoder = policy.memory
        assert isinstance(encoder, Belief)
        params = below(params, "cell")
        self._model, self._params, self._ranks = BeliefModel(encoder, settings), params, run.ranks
        decoders = self._model.init(key.torch())
        self._decoders = {name: value.to(run.device).requires_grad_() for name, value in decoders.items()}
        own = {f"decoder.{name}": value for name, value in self._decoders.items()}
        self._leaves = encoder.encoder(params) | own
        self._optimiser = torch.optim.Adam(self._leaves.values(), settings.belief_step_size, fused=True)
        self._buffer = TrialBuffer(settings.buffer, horizon, encoder.observed + encoder.acted + 2)
        self._shown = RunningMoments.none(encoder.shown)
        restored = run.restore(self.state() | {"belief_optimiser": self._optimiser})
        if restored is not None:
            state = restored[1]
            with torch.no_grad():
                for name, value in self._decoders.items():
                    value.copy_(state["decoders"][name])
            self._optimiser.load_state_dict(state["belief_optimiser"])
            self._buffer.load(state["buffer"])
            self._shown = RunningMoments(**state["shown"])

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the policy's parameters."""
        return {
            "decoders": {name: value.detach() for name, value in self._decoders.items()},
            "belief_optimiser": self._optimiser.state_dict(),
            "buffer": self._buffer.state(),
            "shown": dict(vars(self._shown)),
        }

    def learn(self, experience: TrialEpisodes, key: Key) -> dict[str, float]:
        """Learn from the trials of an update and those kept, keep some, and standardise anew what the policy sees.

        Args:
            experience: T x E trials, those of all ranks.
            key: names the streams of what is drawn.

        Returns:
            Diagnostics, means over the gradient steps.

        Raises:
            NonFiniteError: the bound or its gradient is not finite.
        """
        obs = experience.episodes.obs.flatten(0, 1).transpose(0, 1)
        valid = experience.episodes.valid.flatten(0, 1).T
        settings, total = self._model.settings, dict[str, Tensor]()
        for step in range(settings.belief_updates):
            rng = key("step", step).numpy()
            diagnostics = self._step(*self._buffer.draw(obs, valid, settings.belief_trials, rng), rng)
            for name, value in diagnostics.items():
                total[name] = total.get(name, torch.zeros_like(value)) + value
        finite.check_tensors(self._leaves, "after learning the belief, ")
        self._buffer.add(obs, valid, settings.buffer_added, key("buffer"))
        self._standardise(obs, valid)
        return {f"belief/{name}": float(value) / settings.belief_updates for name, value in total.items()}

    def _step(self, obs: Tensor, valid: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """One gradient step on the bound of `N` trials, of which this rank works on its part."""
        horizon, n = valid.shape
        settings, encoder = self._model.settings, self._model.encoder
        moments = _some(rng, horizon, settings.moments)
        decoded = _some(rng, horizon - 1, settings.decoded)
        noise = torch.from_numpy(rng.standard_normal((len(moments), n, encoder.latent), dtype=np.float32))
        count = valid[moments].sum().clamp(min=1)
        own = torch.arange(n).tensor_split(self._ranks.size)[self._ranks.rank]
        counted = valid[:, own] if len(own) else torch.zeros_like(valid[:, :1])  # a trial that counts for nothing
        own = own if len(own) else torch.zeros(1, dtype=torch.long)
        device = next(iter(self._decoders.values())).device
        loss, diagnostics = self._model.loss(
            encoder.encoder(self._params),
            self._decoders,
            obs[:, own].to(device),
            counted.to(device),
            moments=moments.to(device),
            decoded=decoded.to(device),
            noise=noise[:, own].to(device),
            count=count.to(device),
        )
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        diagnostics = {f"{name}_error" if name != "divergence" else name: value for name, value in diagnostics.items()}
        diagnostics = add_gradients(self._ranks, self._leaves.values(), diagnostics | {"loss": loss.detach()})
        finite.check_numbers(diagnostics)
        finite.check_gradient(self._leaves)
        with finite.refusals_of_torch():
            self._optimiser.step()
        return diagnostics

    def _standardise(self, obs: Tensor, valid: Tensor) -> None:
        """Add what the policy saw at the steps of an update to the running moments, with the belief as it is now."""
        encoder, mean = self._model.encoder, self._params["norm.mean"]
        with torch.no_grad():
            belief, _ = encoder.posterior(self._params, obs.to(mean.device), encoder.start(obs.shape[1], mean.device))
            self._shown = self._shown.update(encoder.show(obs.to(mean.device), belief)[valid.to(mean.device)].cpu())
            mean.copy_(self._shown.mean)
            self._params["norm.deviation"].copy_(self._shown.deviation)


def _some(rng: np.random.Generator, n: int, count: int) -> Tensor:
    """`count` of the numbers below n, in order; all of them if that is 0 or they are fewer."""
    if not count or count >= n:
        return torch.arange(n)
    return torch.from_numpy(np.sort(rng.choice(n, count, replace=False)))
