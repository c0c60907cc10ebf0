"""Everything of one's own, from Python: a family, modules, a callback, trained, judged, filmed and driven."""

from mypackage.callbacks import Watch
from mypackage.families import Room, Rooms
from mypackage.nets import Policy, encoder

import metarl

family, few = Rooms(), {"tasks": 3, "episodes": 4}
maml = metarl.train(
    "maml-trpo", family, out="runs/maml", network=Policy, callbacks=[Watch()], iterations=5, hidden=(4,), **few
)
rl2 = metarl.train(
    *("rl2", family),
    out="runs/rl2",
    encoder=encoder,
    embedding=6,
    hidden=8,
    trials=8,
    minibatches=2,
    iterations=5,
    callbacks=[Watch()],
)
agents = {"runs/maml": maml, "runs/rl2": rl2, "random": metarl.make_agent("random", family)}
for folder in ("runs/maml", "runs/rl2"):
    rows = metarl.Run.open(folder).metrics()
    assert [row["score/iterations"] for row in rows] == [1, 2], rows  # its callback added and stopped

curves = [metarl.measure(agent, steps=1, **few) for agent in agents.values()]
again = metarl.measure("runs/maml", steps=1, **few)  # as another process would: all is found by its name
assert again.to_dict() == curves[0].to_dict()
compared = metarl.compare(curves)
print("compared", compared.labels)
metarl.plot_curves(compared.curves, "curves.png")
metarl.film(maml, "maml.gif", steps=1, episodes=2)
metarl.film(rl2, "rl2.gif")

room = Room(loss=1.2)  # not even one that the family has made
for name, agent in agents.items():
    adapted = agent.adapt(room, steps=1, episodes=4)
    obs, _ = room.reset(seed=1)
    state, reward, ended, total = None, None, False, 0.0
    for _ in range(20):
        action, state = adapted.predict(obs, state, ended, reward=reward)
        assert room.action_space.contains(action), action
        obs, reward, terminated, truncated, _ = room.step(action)
        total, ended = total + reward, terminated or truncated
        if ended:
            obs, _ = room.reset()
    print("driven", name, adapted.env_steps, f"{total:.1f}")
