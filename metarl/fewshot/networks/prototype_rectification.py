"""BD-CSPN (Liu et al. 2020, "Prototype rectification for few-shot learning"): class means that the queries correct.

    q' = q + mean(support) - mean(query)                        the bias between support and query set
    the query is counted to the class n whose mean P_n has the largest cosine with q'
    P'_n = sum w x,  w = softmax(10 cos(x, P_n))                over n's support images and the queries counted to it

Transductive: a prediction depends on all query images of the task, which must be of its classes, about equally many of
each. The paper compares q' with P'_n by cosine and by the most confident queries only; here all queries count, as in
easyfsl, and any head is shown P'_n as the one support image of class n.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from metarl.fewshot.networks.distances import class_means, exact, unit
from metarl.fewshot.networks.embedding import EmbeddingNetwork
from metarl.seeding import Key

SHARPNESS = 10.0  # of the weights (Liu et al. 2020's epsilon)


class Rectified(EmbeddingNetwork):
    """A head that is shown rectified class means, and queries moved.

    Args:
        head: in evaluation mode; its encoder is shared.
    """

    def __init__(self, head: EmbeddingNetwork) -> None:
        super().__init__(head.encoder, head.batch_norm)
        self.feature_norm = head.feature_norm
        self.head = head

    def compare(self, support: Tensor, labels: Tensor, query: Tensor, ways: int, keys: Sequence[Key] = ()) -> Tensor:
        """Log-probabilities `(T, R, N)`; see `EmbeddingNetwork.compare`."""
        tasks = [rectified(*task, ways) for task in zip(support, labels, query, strict=True)]
        means, moved = (torch.stack(part).to(query.dtype) for part in zip(*tasks, strict=True))
        names = torch.arange(ways, device=labels.device).expand(len(means), -1)
        return self.head.compare(means, names, moved, ways, keys)


def rectified(support: Tensor, labels: Tensor, query: Tensor, ways: int) -> tuple[Tensor, Tensor]:
    """Class means `(N, F)` that the queries correct, and the queries `(R, F)` moved, of one task, in double precision.

    Args:
        support: features `(S, F)`.
        labels: `(S,)` in 0..ways-1, each class at least once.
        query: features `(R, F)`.
        ways: N.
    """
    support, query = exact(support), exact(query)
    query = query + support.mean(0) - query.mean(0)
    both = torch.cat([support, query])
    cosines = unit(both) @ unit(class_means(support[None], labels[None], ways)[0]).T
    counted = torch.cat([labels, cosines[len(support) :].argmax(1)])
    member = F.one_hot(counted, ways).bool()
    weights = (SHARPNESS * cosines).where(member, -torch.inf).softmax(0)
    return weights.T @ both, query
