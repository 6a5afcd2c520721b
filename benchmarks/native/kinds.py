"""What a row is of: its case and part, and the line that it has in tables."""

from typing import NamedTuple

from benchmarks.native.cases import MEMBERS, PARTS, Asked
from benchmarks.rows import Row, case_of


def asked_of(row: Row) -> Asked:
    return Asked(row["part"], case_of(row))


class Kind(NamedTuple):
    """What has a line in tables and in the figure, over all shapes."""

    part: str
    op: str
    dtype: str

    def __str__(self) -> str:
        """The operation, and what is done with it."""
        return {
            "resets": f"{self.op} with resets",
            "step": f"{self.op}, one step",
            "bodies": f"scan of {self.op}",
            "half": f"{self.op}, {self.dtype}",
            "ensemble": f"{self.op}, {MEMBERS} members",
        }.get(self.part, self.op)


def kind_of(row: Row) -> Kind:
    return Kind(row["part"], row["op"], row["dtype"])


def kinds_of(rows: list[Row]) -> list[Kind]:
    """In the order of the parts."""
    found = dict.fromkeys(map(kind_of, rows))
    place = lambda k: ([*PARTS].index(k.part), PARTS[k.part].index(k.op), k.dtype)
    return sorted(found, key=place)
