"""Learn new letters from five pictures each, with a run of Prototypical Networks as a scikit-learn classifier.

python examples/few_shot_classifier.py --iterations 500
"""

import argparse

import numpy as np
from sklearn.metrics import accuracy_score

import metarl

options = argparse.ArgumentParser()
options.add_argument("--out", default="runs/example-classifier")
options.add_argument("--iterations", type=int, default=500)
given = options.parse_args()

dataset = metarl.make_dataset("glyphs", ways=5, shots=5)
classifier = metarl.train("protonet", dataset, out=given.out, iterations=given.iterations)

letters = dataset.batch(dataset.fixed("test", 1))[0]  # 5 classes that it has never seen
support, query = (1.0 - pictures[:, 0].numpy() for pictures in (letters.support_x, letters.query_x))  # dark ink
classifier.fit(support, letters.support_y.numpy())
accuracy = accuracy_score(letters.query_y.numpy(), classifier.predict(query))
print(f"{accuracy:.0%} of {len(query)} new pictures are recognised")
print(np.round(classifier.predict_proba(query[:1]), 2))
