"""What two ranks do with the checkpoint of one process: the last stage of two, one, two."""

from support.balancers.engine_cases import loaded_by_two

CASES = {"loaded by two": loaded_by_two}
