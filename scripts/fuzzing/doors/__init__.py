"""Every door by its name: a function that makes an input of what hypothesis draws."""

from fuzzing.case import Door
from fuzzing.doors.files import archives, pictures
from fuzzing.doors.numbers import evaluations, others, trainings
from fuzzing.doors.pt_files import checkpoints
from fuzzing.doors.python import environments, sources
from fuzzing.doors.records import codes, configs, curves, films, logs, manifests, names, option_files

DOORS: dict[str, Door] = {
    "options of train": trainings,
    "options of evaluate": evaluations,
    "options of the other commands": others,
    "pictures": pictures,
    "archives": archives,
    "options from Python": sources,
    "environment": environments,
    "checkpoints": checkpoints,
    "manifests": manifests,
    "config.json": configs,
    "code that a config names": codes,
    "logs": logs,
    "curves": curves,
    "names": names,
    "films in a run": films,
    "files of options": option_files,
}
