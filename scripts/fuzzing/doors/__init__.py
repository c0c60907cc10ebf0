"""Every door by its name: a function that makes an input of what hypothesis draws."""

from fuzzing.case import Door
from fuzzing.doors.numbers import evaluations, others, trainings

DOORS: dict[str, Door] = {
    "options of train": trainings,
    "options of evaluate": evaluations,
    "options of the other commands": others,
}
