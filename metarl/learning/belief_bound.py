"""The evidence lower bound that a belief about the task is learned from (Zintgraf et al. 2020, equations 7 to 9).

At moment t of a trial the belief q_t must explain the whole trial, what is past and what is to come:

    minimise  mean_{b,t} [ sum_i ( w_r (r_i - R(m, s_i, a_i, s_{i+1}))^2 + w_s |s_{i+1} - S(m, s_i, a_i)|^2 / D )
                           + w KL(q_t || q_{t-1}) ],    m ~ q_t,    q_{-1} = N(0, I),

a mean over trials b and moments t, a *sum* over transitions i, and a sum over the latent numbers in the divergence.
VariBAD's code sums over t as well: the same weights between the terms, and Adam does not see a common factor. Where
moments and transitions are drawn at random the sums are of those drawn and not scaled up, as there; so the weight of
the divergence counts against as many squared errors as are decoded.

The states are those that trials show: where an episode has ended, the next one's first. There the decoder of rewards is
told 0 in place of the next state, and that an episode has ended; the decoder of states is not asked. What the last step
of a trial led to is not among a trial's observations, and is not decoded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.learning.belief_settings import BeliefSettings
from metarl.nets.belief import Belief
from metarl.nets.distributions import Gaussian
from metarl.nets.mlp import MLP
from metarl.nets.params import Params, below


def chain_divergence(belief: Gaussian) -> Tensor:
    """KL(q_t || q_{t-1}) with q_{-1} = N(0, I), of beliefs at L moments in a row `(L, N, K)`: `(L, N)`."""
    mean, log_std = (torch.cat([torch.zeros_like(x[:1]), x[:-1]]) for x in (belief.mean, belief.log_std))
    return belief.kl(Gaussian(mean, log_std))


@dataclass(frozen=True)
class Transitions:
    """Some of the transitions of N trials, I in a row."""

    state: Tensor  # (I, N, D)
    action: Tensor  # (I, N, A)
    reward: Tensor  # (I, N)
    after: Tensor  # (I, N, D), the next state; 0 where an episode has ended
    ended: Tensor  # (I, N), 1 where an episode has ended
    valid: Tensor  # (I, N), 1 for those that there were

    @staticmethod
    def of(obs: Tensor, valid: Tensor, observed: int, which: Tensor) -> Transitions:
        """Those from the steps `which` to the next.

        Args:
            obs: `(H, N, D + A + 2)`, observations of trials.
            valid: `(H, N)`, the steps that were really taken.
            observed: D.
            which: `(I,)`, at most H - 2.
        """
        sizes = [observed, obs.shape[-1] - observed - 2, 1, 1]
        after, acted, reward, ended = torch.split(obs[which + 1], sizes, -1)
        state, there = obs[which][..., :observed], valid[which + 1].to(obs.dtype)
        return Transitions(state, acted, reward[..., 0], after * (1 - ended), ended[..., 0], there)


@dataclass(frozen=True)
class BeliefModel:
    """The encoder of a belief and the decoders it is learned with."""

    encoder: Belief
    settings: BeliefSettings

    @property
    def decoders(self) -> dict[str, MLP]:
        """The networks that predict rewards and, if they are asked for, states."""
        latent, observed, acted = self.encoder.latent, self.encoder.observed, self.encoder.acted
        decoders = {"reward": MLP((latent + 2 * observed + acted + 1, *self.settings.reward_decoder, 1), "relu")}
        if self.settings.state_decoder:
            decoders["state"] = MLP((latent + observed + acted, *self.settings.state_decoder, observed), "relu")
        return decoders

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters of the decoders."""
        return {
            f"{name}.{key}": value
            for name, decoder in self.decoders.items()
            for key, value in decoder.init(generator).items()
        }

    def errors(self, decoders: Params, latent: Tensor, transitions: Transitions) -> dict[str, Tensor]:
        """Sums over transitions of the squared errors of each decoder, `(M, N)`, for tasks `latent (M, N, K)`."""
        seen, ended = transitions, transitions.ended.unsqueeze(-1)
        inputs_of = {
            "reward": torch.cat([seen.state, seen.action, seen.after, ended], -1),
            "state": torch.cat([seen.state, seen.action], -1),
        }
        errors = {}
        for name, decoder in self.decoders.items():
            lead = (len(latent), *inputs_of[name].shape[:2], -1)
            inputs = torch.cat([latent.unsqueeze(1).expand(lead), inputs_of[name].expand(lead)], -1)
            predicted = decoder(below(decoders, name), inputs)
            if name == "reward":
                error, counts = (predicted.squeeze(-1) - seen.reward) ** 2, seen.valid
            else:
                error, counts = ((predicted - seen.after) ** 2).mean(-1), seen.valid * (1 - seen.ended)
            errors[name] = (error * counts).sum(1)
        return errors

    def loss(
        self,
        encoder: Params,
        decoders: Params,
        obs: Tensor,
        valid: Tensor,
        *,
        moments: Tensor,
        decoded: Tensor,
        noise: Tensor,
        count: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What is to be minimised, and its terms before they are weighted.

        Args:
            encoder: its parameters.
            decoders: theirs.
            obs: of N trials, `(H, N, D + A + 2)`.
            valid: the steps that were really taken, `(H, N)`.
            moments: t, `(M,)`.
            decoded: i, `(I,)`, at most H - 2.
            noise: standard normal, `(M, N, K)`.
            count: valid moments, which the sums over a part of a minibatch are divided by; None for the whole.
        """
        belief, _ = self.encoder.posterior(
            encoder, obs, self.encoder.start(obs.shape[1], obs.device).to(obs), self.settings.cut
        )
        latent = Gaussian(belief.mean[moments], belief.log_std[moments]).sample(noise)
        transitions = Transitions.of(obs, valid, self.encoder.observed, decoded)
        terms = self.errors(decoders, latent, transitions) | {"divergence": chain_divergence(belief)[moments]}
        there = valid[moments].to(obs.dtype)
        count = there.sum().clamp(min=1) if count is None else count
        means = {name: (term * there).sum() / count for name, term in terms.items()}
        settings = self.settings
        weights = {"reward": settings.reward_weight, "state": settings.state_weight, "divergence": settings.kl_weight}
        loss = sum((weights[name] * mean for name, mean in means.items()), obs.new_zeros(()))
        return loss, {name: mean.detach() for name, mean in means.items()}
