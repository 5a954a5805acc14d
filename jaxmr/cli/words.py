"""Words of the command line that stand for numbers; light, since the parser needs them."""

import re


def numbers(text: str) -> list[float]:
    """Numbers separated by commas."""
    return [float(word) for word in text.split(",")]


def sizes(text: str) -> tuple[int, ...]:
    """Numbers of voxels, of `64` or `64x80`."""
    return tuple(int(word) for word in text.split("x"))


def size(text: str) -> float:
    """Bytes, of `500MB` or `2GB`."""
    found = re.fullmatch(r"([0-9.]+)\s*(MB|GB)", text)
    if found is None:
        raise ValueError
    return float(found[1]) * {"MB": 1e6, "GB": 1e9}[found[2]]


def slices_or_auto(text: str) -> int | None:
    """A number of sub-slices; `auto` is None, and leaves it to the plan."""
    return None if text == "auto" else int(text)


def milliseconds_or_none(text: str) -> float | None:
    """A time in ms, or None for `none`."""
    return None if text == "none" else float(text)


def tissue(text: str) -> tuple[float, float]:
    """T1 and T2 in ms, of `900/85`."""
    t1, t2 = (float(word) for word in text.split("/"))
    if not 0 < t2 <= t1 < float("inf"):
        raise ValueError
    return t1, t2


def weight(text: str) -> tuple[str, float]:
    """A parameter and its weight, of `t1=1`."""
    name, value = text.split("=")
    if name not in ("m0", "t1", "t2", "b1") or not 0 <= float(value) < float("inf"):
        raise ValueError
    return name, float(value)


def steps(text: str) -> tuple[float, float, int]:
    """Lowest, highest and number of values, of `0.8:1.2:3`."""
    low, high, count = text.split(":")
    return float(low), float(high), int(count)
