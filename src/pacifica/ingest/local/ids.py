"""Number ranges out of the database of this process.  Fulfils `ports.Ids`; chosen by `[uniqueid] url = local:`."""

from pacifica.ingest.database import found, insert_once
from pacifica.ingest.ports import IdMode
from pacifica.ingest.tables import LocalId
from pacifica.ingest.transactions import retried

__all__ = ["LocalIds"]


class LocalIds:
    """`ports.Ids` on one row for each series; the first number is 1.

    Stronger than the port asks: no range is given twice, to however many processes.
    """

    def reserve(self, mode: IdMode, count: int) -> range:
        """See `ports.Ids.reserve`."""
        if count < 1:
            msg = f"a range of {count} numbers cannot be reserved"
            raise ValueError(msg)
        taken = self._take(mode.value, count)
        if taken is None:
            self._start(mode.value)
            return self.reserve(mode, count)
        return taken

    @retried(atomic=True)
    def _take(self, mode: str, count: int) -> range | None:
        """Move the series on; the update holds the row until the commit, so that the number read is ours."""
        mine = LocalId.mode == mode
        if not LocalId.update(next_id=LocalId.next_id + count).where(mine).execute():
            return None
        after: int = found(LocalId, mode).next_id
        return range(after - count, after)

    @retried(atomic=True)
    def _start(self, mode: str) -> None:
        """Begin a series.  A transaction of its own: in MySQL, insert and update in one would deadlock."""
        insert_once(LocalId, mode=mode, next_id=1)
