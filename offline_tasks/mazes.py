"""Mazes: maps, walls, shortest paths. The maps umaze, medium and large are D4RL's
(https://github.com/Farama-Foundation/D4RL, Apache 2.0)."""

import numpy as np

MAZES = {  # wall #, start R, goal G
    "umaze": """\
#####
#R..#
###.#
#G..#
#####""",
    "medium": """\
########
#R.##..#
#..#...#
##...###
#..#...#
#.#..#.#
#...#.G#
########""",
    "large": """\
############
#R...#.....#
#.##.#.#.#.#
#......#...#
#.####.###.#
#..#.#.....#
##.#.#.#.###
#..#...#.G.#
############""",
    # Thin walls: every second row and column holds the walls between cells. The goal is beside the
    # start and beside a dead end, but 17 cells and nine corners away.
    "walls": """\
###########
#R....#...#
#####.#.#.#
#G#.#...#.#
#.#.#####.#
#.#.......#
#.#.#####.#
#.#.#.....#
#.###.###.#
#.....#...#
###########""",
}
HALF_THICKNESS = 0.1  # of a thin wall, in cells
DIRECTIONS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])


def maze_rows(name: str) -> list[str]:
    """The rows of a map, each a string of its cells."""
    return MAZES[name].split("\n")


def find_cell(rows: list[str], letter: str) -> tuple[int, int]:
    """Row and column of the first cell with this letter."""
    return next((i, row.index(letter)) for i, row in enumerate(rows) if letter in row)


class Maze:
    """A map with its walls and paths. Positions are (x, y) in cells from the upper left corner, y
    downwards. Free cells are numbered: `cells` (n, 2) are their centres, `distance` (n, n) counts
    cells on the shortest path, `toward` (n, n) is the next cell from the first to the second."""

    def __init__(self, name: str, thin: bool = False):
        drawing = np.array([list(row) for row in maze_rows(name)]).T  # by x, y
        marks = drawing[1::2, 1::2] if thin else drawing
        free = np.argwhere(marks != "#")
        self.size = np.array(marks.shape, dtype=np.float64)
        self.start = np.argwhere(marks == "R")[0] + 0.5
        self.goal = np.argwhere(marks == "G")[0] + 0.5
        self.cells = free + 0.5
        self.number = np.full(marks.shape, -1)
        self.number[tuple(free.T)] = np.arange(len(free))
        self.distance = _distances(_neighbors(drawing, free, self.number, thin))
        self.toward = _next_cells(self.distance)
        self.walls = drawing == "#"
        self.edges = [_edges(count, thin) for count in drawing.shape]  # of the walls, in x and y
        # How many walls of the drawing lie left of and above a corner.
        self.wall_count = np.pad(self.walls.cumsum(0).cumsum(1), ((1, 0), (1, 0)))

    def overlaps_wall(self, position: np.ndarray, half_width: float) -> np.ndarray:
        """(n,), True where a square body at a position (n, 2) overlaps a wall."""
        left, right = _covered(self.edges[0], position[:, 0], half_width)
        top, bottom = _covered(self.edges[1], position[:, 1], half_width)
        above = self.wall_count[right, top] - self.wall_count[left, top]
        inside = self.wall_count[right, bottom] - self.wall_count[left, bottom]
        return inside > above

    def cell_numbers(self, position: np.ndarray) -> np.ndarray:
        """The numbers (n,) of the cells that positions (n, 2) lie in; -1 in a wall."""
        column, row = np.floor(position).astype(int).T
        return self.number[column, row]


def _edges(count: int, thin: bool) -> np.ndarray:
    """Where the `count` columns of a drawing begin and end, (count + 1,), in cells."""
    if not thin:
        return np.arange(count + 1.0)
    lines = np.arange(count // 2 + 1.0)  # a thin wall is centred between two cells
    edges = np.stack((lines - HALF_THICKNESS, lines + HALF_THICKNESS), 1).ravel()
    edges[0] -= 1  # the outer walls are thicker than a step is long
    edges[-1] += 1
    return edges


def _covered(edges, center, half_width: float) -> tuple[np.ndarray, np.ndarray]:
    """The columns that bodies cover, from the first to before the last, (n,) each."""
    first = np.searchsorted(edges, center - half_width, side="right") - 1
    last = np.searchsorted(edges, center + half_width, side="left")
    return first, last


def _neighbors(drawing, free, number, thin: bool) -> np.ndarray:
    """(n, n), True where one step leads from a cell to another."""
    near = np.zeros((len(free), len(free)), dtype=bool)
    for direction in DIRECTIONS:
        # For thin walls this is the drawing's place between the two cells, else the other cell.
        passage = 2 * free + 1 + direction if thin else free + direction
        is_open = drawing[tuple(passage.T)] != "#"
        here = free[is_open]
        there = here + direction
        near[number[tuple(here.T)], number[tuple(there.T)]] = True
    return near


def _distances(near: np.ndarray) -> np.ndarray:
    """Breadth-first search from every cell at once: (n, n) steps; -1 where no way leads."""
    distance = np.full(near.shape, -1)
    front = np.eye(len(near), dtype=bool)
    steps = 0
    while front.any():
        distance[front] = steps
        steps += 1
        front = (front @ near) & (distance < 0)
    return distance


def _next_cells(distance: np.ndarray) -> np.ndarray:
    """(n, n): of the first cell's neighbours the one nearest to the second; itself when there."""
    is_neighbor = distance == 1
    from_neighbor = np.where(is_neighbor[:, :, None], distance, np.inf)
    toward = from_neighbor.argmin(1)
    np.fill_diagonal(toward, np.arange(len(distance)))
    return toward
