"""What two texts share, exactly: the runs of characters that both hold."""

from __future__ import annotations


def shared_runs(earlier: str, later: str, least: int) -> list[str]:
    """The runs of `later` that stand in `earlier`, each as long as it can be, at least `least` characters.

    Greedy from left to right: at each place of `later` the longest run that `earlier` holds is taken. No place of
    `later` is counted twice.
    """
    if len(earlier) < least or len(later) < least:
        return []
    places: dict[str, list[int]] = {}
    for start in range(len(earlier) - least + 1):
        places.setdefault(earlier[start : start + least], []).append(start)
    found: list[str] = []
    at = 0
    while at <= len(later) - least:
        longest = 0
        for start in places.get(later[at : at + least], ()):
            length = least
            while (
                start + length < len(earlier)
                and at + length < len(later)
                and earlier[start + length] == later[at + length]
            ):
                length += 1
            longest = max(longest, length)
        if longest:
            found.append(later[at : at + longest])
            at += longest
        else:
            at += 1
    return found
