"""Few-shot learning on the same inner and outer loop.

`LEARNERS` names the modules (`metarl.learner.Learner`) and says what each does; nothing loads before it is asked for.
"""

LEARNERS = {
    "maml": ("metarl.fewshot.maml", "network initialisation that adapts in a few gradient steps"),
    "fomaml": ("metarl.fewshot.fomaml", "MAML of first order: it ignores the adaptation's curvature"),
    "anil": ("metarl.fewshot.anil", "MAML that adapts the last layer alone"),
    "meta-sgd": ("metarl.fewshot.meta_sgd", "MAML that learns its step sizes too"),
    "reptile": ("metarl.fewshot.reptile", "moves the initialisation towards the trained networks"),
    "protonet": ("metarl.fewshot.protonet", "the class whose mean embedding is nearest"),
    "matchingnet": ("metarl.fewshot.matchingnet", "a vote of the support images, by attention"),
    "centroid": ("metarl.fewshot.centroid", "nearest class mean on a frozen encoder"),
    "logistic": ("metarl.fewshot.logistic", "logistic regression on a frozen encoder"),
    "baseline": ("metarl.fewshot.baseline", "a linear head fitted on a frozen encoder"),
    "baseline++": ("metarl.fewshot.baseline_plus", "a cosine head fitted on a frozen encoder"),
}
