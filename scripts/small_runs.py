"""A small run of every learner, for scripts that make many of them or let them run for long.

Together they go through what outlives an iteration: optimisers, reward scales, step sizes that change, running
averages, numbers gathered for the next line of the log, validations, and an engine of physics on two threads.
"""

from __future__ import annotations

POINT = ("--family", "metarl/Navigation2D-v0", "--preset", "pearl")  # 20 steps
CHEETAH = ("--family", "metarl/HalfCheetahDirection-v0", "--preset", "varibad")
BANDIT = ("--family", "metarl/BernoulliBandit-v0", "--arms", "3", "--pulls", "8")
MDP = ("--family", "metarl/TabularMDP-v0", "--states", "4", "--actions", "2", "--steps", "4", "--episodes", "3")
PICTURES = ("--dataset", "glyphs", "--ways", "3", "--shots", "2", "--queries", "2")
NUMBERS = ("--dataset", "sinusoid")

_GRADIENT = ("--tasks", "4", "--episodes", "2", "--hidden", "8", "--threads", "2")
_VALIDATED = ("--validate-every", "5", "--validation-tasks", "2")
_MEMORY = ("--trials", "8", "--minibatches", "2", "--hidden", "6", "--embedding", "4")
_BELIEF = ("--trials", "8", "--minibatches", "2", "--hidden", "6", "--buffer", "12", "--buffer-added", "5")
_PPO = ("--envs", "4", "--epochs", "2", "--minibatches", "2", "--hidden", "8")
_LATENT = ("--tasks", "4", "--collect-tasks", "2", "--meta-batch", "2", "--gradient-steps", "3", "--hidden", "8", "8")
_CHOICE = ("--step-sizes", "0.02", "0.1", "0.5", "--validation-tasks", "3", "--adaptation-episodes", "3")
_META = ("--tasks", "4", "--width", "4", "--inner-step-size", "0.1")
_EPISODES = ("--tasks", "2", "--train-ways", "4", "--train-queries", "2", "--width", "4")
_CLASSES = ("--minibatch", "8", "--width", "4")

RUNS: dict[str, tuple[str, ...]] = {  # the words after `metarl train`; what follows a colon is only this table's
    "maml-trpo": (*POINT, *_GRADIENT, "--curvature-fraction", "0.5"),
    "promp": (*POINT, *_GRADIENT, *_VALIDATED),
    "rl2": (*BANDIT, *_MEMORY, *_VALIDATED, "--halve-every", "3"),
    "pearl": (*POINT, *_LATENT, *_VALIDATED),
    "varibad": (*POINT, *_BELIEF, *_VALIDATED, "--moments", "6", "--decoded", "0", "--halve-every", "3"),
    "ppo-pretrained": (*POINT, *_PPO, *_CHOICE, "--validate-every", "5"),
    "ppo-scratch": (*POINT, "--hidden", "8", *_CHOICE),
    "ppo-oracle": (*POINT, *_PPO, *_VALIDATED, "--episodes", "2"),
    "maml": (*PICTURES, *_META, "--strategy", "threads", "--train-queries", "2", "--halve-every", "5"),
    "fomaml": (*PICTURES, *_META, "--strategy", "loop", "--train-queries", "2"),
    "anil": (*PICTURES, *_META, "--strategy", "vmap", "--train-queries", "2"),
    "meta-sgd": (*NUMBERS, "--strategy", "loop", "--tasks", "4", "--hidden", "8"),
    "reptile": (*PICTURES, *_META, "--strategy", "loop", "--train-shots", "3", "--minibatch", "4"),
    "protonet": (*PICTURES, *_EPISODES, "--halve-every", "5"),
    "matchingnet": (*PICTURES, *_EPISODES, "--full-context"),
    "r2d2": (*PICTURES, *_EPISODES, "--halve-every", "5"),
    "meta-baseline": (*PICTURES, *_EPISODES, "--halve-every", "5"),
    "centroid": (*PICTURES, *_CLASSES),
    "logistic": (*PICTURES, *_CLASSES),
    "baseline": (*PICTURES, *_CLASSES, "--epochs", "2"),
    "baseline++": (*PICTURES, *_CLASSES, "--epochs", "2"),
    "maml:layers": (*PICTURES, *_META, "--strategy", "loop", "--step-sizes", "layers", "--inner-steps", "2"),
    "rl2:lstm": (*POINT, *_MEMORY, "--memory", "lstm", "--trial-episodes", "2", "--normalise-rewards"),
    "rl2:transformer": (*BANDIT, *_MEMORY, "--memory", "transformer", "--hidden", "8"),
    "rl2:told": (*MDP, *_MEMORY, "--critic", "task", "--chunk", "5"),
    "rl2:taught": (*MDP, *_MEMORY, "--teacher", "online-beb", "--teacher-iterations", "3", "--halve-every", "3"),
    "rl2:mingru": (*MDP, *_MEMORY, "--memory", "mingru", "--layers", "2", "--token", "transition", "--chunk", "5"),
    "rl2:hypernetwork": (*POINT, *_MEMORY, "--actor", "hypernetwork", "--latent", "3", "--base", "4"),
    "rl2:values": (*MDP, *_MEMORY, "--inputs", "values"),
    "rl2:chunked": (*MDP, *_MEMORY, "--memory", "lstm", "--chunk", "5", "--normalise-rewards"),
    "promp:e-maml": (*POINT, *_GRADIENT, *_VALIDATED, "--preset-config", "e-maml", "--inner-steps", "2"),
    "promp:maml-ppo": (*POINT, *_GRADIENT, "--preset-config", "maml-ppo"),
    "varibad:states": (*MDP, *_BELIEF, "--state-decoder", "6", "--cut", "5", "--critic", "task", "--through"),
    "maml-trpo:cheetah": (*CHEETAH, *_GRADIENT, "--tasks", "2", "--hidden", "4"),
}


def words(name: str) -> list[str]:
    """The words of a command that trains one, without where, how long and with which seed."""
    return ["train", name.partition(":")[0], *RUNS[name]]


def lasting(name: str, iterations: int, every: int) -> list[str]:
    """The options of so many iterations, a checkpoint every so many and, where a learner has a choice, a line each."""
    if name == "ppo-scratch":  # there is nothing to iterate
        return []
    few_shot = "--dataset" in RUNS[name]
    return [
        *("--iterations", str(iterations), "--checkpoint-every", str(every)),
        *(("--log-every", str(every + 1)) if few_shot else ()),
    ]
