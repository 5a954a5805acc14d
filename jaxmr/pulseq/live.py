import numpy as np


def is_live(x):
    return False


def value(x):
    return x


def stack(numbers):
    return np.array(numbers, float)


def factored(x):
    return None
