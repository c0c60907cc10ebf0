"""Few-shot learning on the same inner and outer loop.

`LEARNERS` names the modules (`metarl.learning.contract.Learner`) and says what each does; nothing loads before it is
asked for.
"""

LEARNERS = {
    "maml": ("metarl.fewshot.learners.maml", "network initialisation that adapts in a few gradient steps"),
    "fomaml": ("metarl.fewshot.learners.fomaml", "MAML of first order: it ignores the adaptation's curvature"),
    "anil": ("metarl.fewshot.learners.anil", "MAML that adapts the last layer alone"),
    "meta-sgd": ("metarl.fewshot.learners.meta_sgd", "MAML that learns its step sizes too"),
    "reptile": ("metarl.fewshot.learners.reptile", "moves the initialisation towards the trained networks"),
    "protonet": ("metarl.fewshot.learners.protonet", "the class whose mean embedding is nearest"),
    "matchingnet": ("metarl.fewshot.learners.matchingnet", "a vote of the support images, by attention"),
    "r2d2": ("metarl.fewshot.learners.r2d2", "a ridge regression on the support images, trained through"),
    "meta-baseline": ("metarl.fewshot.learners.meta_baseline", "the class mean with the largest cosine"),
    "centroid": ("metarl.fewshot.learners.centroid", "nearest class mean on a frozen encoder"),
    "logistic": ("metarl.fewshot.learners.logistic", "logistic regression on a frozen encoder"),
    "baseline": ("metarl.fewshot.learners.baseline", "a linear head fitted on a frozen encoder"),
    "baseline++": ("metarl.fewshot.learners.baseline_plus", "a cosine head fitted on a frozen encoder"),
}
