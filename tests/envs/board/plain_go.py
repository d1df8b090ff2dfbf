"""Go by flood fill and a set of past boards, as slow and plain as the rules read."""

from __future__ import annotations

from collections.abc import Iterator

EMPTY, PASS = ".", -1


class PlainGo:
    """One game. A board is a string of X, O and . row by row; points are its indices."""

    def __init__(self, rows: int, columns: int, suicide: bool = False) -> None:
        self.rows, self.columns, self.suicide = rows, columns, suicide
        self.board = EMPTY * (rows * columns)
        self.past = {self.board}
        self.turn, self.passes = 0, 0

    def beside(self, point: int) -> Iterator[int]:
        row, column = divmod(point, self.columns)
        for r, c in ((row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column)):
            if 0 <= r < self.rows and 0 <= c < self.columns:
                yield self.columns * r + c

    def region(self, board: str, start: int) -> tuple[set[int], set[str]]:
        """The points of one colour joined to a point, and the colours beside them."""
        found, waiting, borders = {start}, [start], set()
        while waiting:
            for point in self.beside(waiting.pop()):
                if board[point] != board[start]:
                    borders.add(board[point])
                elif point not in found:
                    found.add(point)
                    waiting.append(point)
        return found, borders

    def after(self, point: int) -> tuple[str, int, int]:
        """The board after a stone, and how many of the other's and of the player's own are taken."""
        own, other = "XO"[self.turn], "OX"[self.turn]
        board = self.board[:point] + own + self.board[point + 1 :]
        taken = [0, 0]
        for k, colour, starts in ((0, other, list(self.beside(point))), (1, own, [point])):
            for start in starts:
                if board[start] == colour:
                    chain, borders = self.region(board, start)
                    if EMPTY not in borders:
                        board = "".join(EMPTY if p in chain else stone for p, stone in enumerate(board))
                        taken[k] += len(chain)
        return board, taken[0], taken[1]

    def legal(self, point: int) -> bool:
        if self.board[point] != EMPTY:
            return False
        board, _, own = self.after(point)
        return (own == 0 or self.suicide) and board not in self.past

    def play(self, point: int) -> None:
        if point == PASS:
            self.passes += 1
        else:
            self.board, self.passes = self.after(point)[0], 0
            self.past.add(self.board)
        self.turn = 1 - self.turn

    def lead(self) -> int:
        """Black's area less white's."""
        total = 0
        for point, stone in enumerate(self.board):
            colours = {stone} if stone != EMPTY else self.region(self.board, point)[1]
            total += (colours == {"X"}) - (colours == {"O"})
        return total
