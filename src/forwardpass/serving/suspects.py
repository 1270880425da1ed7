"""Suspects: which row ends the process that computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from forwardpass.serving.unanswered import AskedRow, RowStage


class Suspects:
    """Rows that were in an engine when it died, in the groups in which they were there.

    Each group is tried once more as it was, with nothing else in the engine: so whoever shares no
    fault with it is not harmed a second time, and another death tells of this group alone. Then it
    is halved until the row stands alone. A row that was alone in the engine at its second death,
    or at a later one, is convicted.
    """

    def __init__(self) -> None:
        self._groups: deque[list[AskedRow]] = deque()
        self._halved: list[tuple[int, list[AskedRow]]] = []

    def __bool__(self) -> bool:
        return bool(self._groups)

    def died(self, groups: Sequence[list[AskedRow]], cells: int = 0) -> AskedRow | None:
        """The engine died with these groups in it. Returns the row that is convicted.

        `cells` are those that it computed when it died by itself; 0: it did not.
        """
        groups = [group for group in groups if group]
        for group in groups:
            for row in group:
                row.deaths += 1
        alone = len(groups) == 1 and all(row.deaths > 1 for row in groups[0])
        if not alone:
            self._groups.extendleft(reversed(groups))
            return None
        (group,) = groups
        if len(group) == 1:
            return group[0]
        if cells:
            self._halved.append((cells, group))
        middle = len(group) // 2
        self._groups.extendleft((group[middle:], group[:middle]))
        return None

    def together(self) -> list[int]:
        """Cells of the batches that were too much at once, as when the system has no memory left:
        they ended the process, and apart each of their rows was answered. Asked once there are no
        suspects any more; said once."""
        halved, self._halved = self._halved, []
        answered = RowStage.ANSWERED
        return [c for c, group in halved if all(row.stage is answered for row in group)]

    def next(self) -> list[AskedRow]:
        """The group to be tried next: its rows that are still asked for; empty: there is none."""
        while self._groups:
            group = [row for row in self._groups.popleft() if not row.asker.done]
            if group:
                return group
        return []

    def put_back(self, group: list[AskedRow]) -> None:
        """A group that could not be tried is the next one still."""
        self._groups.appendleft(group)
