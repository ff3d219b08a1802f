"""Questions of all twenty tasks with squares that are drawn for them.

Every answer follows from what is drawn, and is drawn evenly over the options that can be right: the
words of a question alone do not tell it. Tasks of order have another answer where frames are played
backwards. All questions of a task have the same options, so that where these keep their order a
letter always means the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from msvqa.data.sampling import FRAMES_FPS
from msvqa.mvbench.tasks import TASKS, Task

SIZE_PX, FRAMES, FPS = 64, 24, 8.0
FOLDER_FRAMES = 30
SIDE = 14
SPEED = 2
"""Pixels a frame, which take a square across the picture."""
GREY, GREY_NAME = (128, 128, 128), "grey"
COLORS = {
    "red": (220, 35, 35),
    "green": (35, 170, 60),
    "blue": (40, 70, 225),
    "yellow": (235, 220, 50),
    "purple": (135, 45, 165),
    "white": (240, 240, 240),
}
ASKED = ("red", "green", "blue", "yellow")
"""Colours of what is asked about."""
TINT = 12
"""So far a colour may be from its name's, in each channel: no two media look the same."""
UNSURE = "It cannot be told."


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A colour of the background for some of the frames."""

    rgb: Sequence[int]
    first: int = 0
    last: int = FRAMES


@dataclass(frozen=True, kw_only=True)
class Square:
    """A square, its top-left corner and how far it moves each frame, in pixels."""

    rgb: Sequence[int]
    x: int
    y: int
    dx: int = 0
    dy: int = 0
    size: int = SIDE
    first: int = 0
    last: int = FRAMES


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One question with what is drawn for it."""

    question: str
    options: Sequence[str]
    """In the order of the task."""
    answer: str
    background: Sequence[Ground] = (Ground(rgb=GREY),)
    squares: Sequence[Square] = ()
    span: tuple[float, float] | None = None


class Pen:
    """Chances of one question: what is asked for is even over the questions of a task."""

    def __init__(self, generator: np.random.Generator, number: int) -> None:
        self.generator, self.number = generator, number

    def evenly(self, options: Sequence[Any]) -> Any:
        """Return one of the options; over the questions of a task each as often."""
        return options[self.number % len(options)]

    def some(self, options: Sequence[Any], count: int) -> list[Any]:
        """Return different options in a drawn order."""
        return [options[n] for n in self.generator.permutation(len(options))[:count]]

    def between(self, low: int, high: int) -> int:
        """Return a whole number, both ends included."""
        return int(self.generator.integers(low, high + 1))

    def tint(self, color: str) -> tuple[int, ...]:
        """Return a colour that is near the one of a name."""
        return tuple(value + self.between(-TINT, TINT) for value in COLORS[color])

    def color(self) -> tuple[int, ...]:
        """Return any colour that is asked about."""
        return self.tint(self.some(ASKED, 1)[0])

    def place(self) -> int:
        """Return a coordinate at which a square is whole."""
        return self.between(4, SIZE_PX - SIDE - 4)


def _named(color: str) -> str:
    return f"{color.capitalize()}."


def _screens(pen: Pen, colors: Sequence[str], length: int) -> list[Ground]:
    return [
        Ground(rgb=pen.tint(color), first=n * length, last=(n + 1) * length)
        for n, color in enumerate(colors)
    ]


def _answered(pen: Pen, count: int, colors: Sequence[str] = ASKED) -> tuple[str, list[str]]:
    """Return the colour that is the answer, and other colours."""
    answer = pen.evenly(colors)
    return answer, pen.some([color for color in colors if color != answer], count)


def _action_sequence(pen: Pen) -> Drawn:
    answer, (first, second) = _answered(pen, 2)
    return Drawn(
        question=f"Which colour fills the screen after {second}?",
        options=[*map(_named, ASKED)],
        answer=_named(answer),
        background=_screens(pen, [first, second, answer], FRAMES // 3),
        span=(0.5, 3.0),
    )


def _action_prediction(pen: Pen) -> Drawn:
    answer, (other,) = _answered(pen, 1)
    return Drawn(
        question="Two colours take turns. Which one comes next after this part?",
        options=[*map(_named, ASKED)],
        answer=_named(answer),
        background=_screens(pen, [answer, other] * 3, FRAMES // 6),
        # The next colour begins at 2 s.
        span=(0.0, 1.9),
    )


def _way(pen: Pen, way: tuple[int, int]) -> Square:
    """Return a square that moves from one side to the other; in the middle it is halfway."""
    (dx, dy), start = way, pen.between(0, 4)
    at = {0: pen.place(), 1: start, -1: SIZE_PX - SIDE - start}
    return Square(rgb=pen.color(), x=at[dx], y=at[dy], dx=dx * SPEED, dy=dy * SPEED)


def _in_row(pen: Pen, color: str, y: int, moves: bool) -> Square:
    """Return a square that crosses the picture, or one that stays anywhere in its row."""
    x, dx = (pen.between(0, 4), SPEED) if moves else (pen.place(), 0)
    return Square(rgb=pen.tint(color), x=x, y=y, dx=dx)


def _action_antonym(pen: Pen) -> Drawn:
    ways = {"It moves to the left.": (-1, 0), "It moves to the right.": (1, 0)}
    answer = pen.evenly(list(ways))
    return Drawn(
        question="What does the square do?",
        options=[*ways, UNSURE],
        answer=answer,
        squares=[_way(pen, ways[answer])],
    )


def _fine_grained_action(pen: Pen) -> Drawn:
    answer = pen.evenly(["It slides fast.", "It slides slowly.", "It stays.", "It blinks."])
    slide = _way(pen, (1, 0))
    still = replace(slide, dx=0)
    squares = {
        "It slides fast.": [slide],
        "It slides slowly.": [replace(slide, dx=1)],
        "It stays.": [still],
        "It blinks.": [replace(still, first=n, last=n + 3) for n in range(0, FRAMES, 6)],
    }
    return Drawn(
        question="How does the square move?",
        options=list(squares),
        answer=answer,
        squares=squares[answer],
    )


def _unexpected_action(pen: Pen) -> Drawn:
    half = FRAMES // 2
    one, two = pen.some(ASKED, 2)
    before = Square(rgb=pen.tint(one), x=6, y=pen.place(), last=half)
    after = replace(before, first=half, last=FRAMES)
    squares = {
        "The square jumps to the other side.": replace(after, x=SIZE_PX - SIDE - 6),
        "The square changes its colour.": replace(after, rgb=pen.tint(two)),
        "The square grows.": replace(after, size=2 * SIDE),
        "The square disappears.": None,
    }
    answer = pen.evenly(list(squares))
    later = squares[answer]
    return Drawn(
        question="What is unexpected here?",
        options=list(squares),
        answer=answer,
        squares=[before, *([later] if later else [])],
    )


def _object_existence(pen: Pen) -> Drawn:
    answer = pen.evenly(["Yes.", "No."])
    asked, other = pen.some(ASKED, 2)
    first = pen.between(0, FRAMES // 2)
    color = asked if answer == "Yes." else other
    square = Square(rgb=pen.tint(color), x=pen.place(), y=pen.place(), first=first, last=first + 10)
    return Drawn(
        question=f"Is there a {asked} square at any time?",
        options=["Yes.", "No.", UNSURE],
        answer=answer,
        squares=[square],
    )


def _object_interaction(pen: Pen) -> Drawn:
    answer, (other,) = _answered(pen, 1)
    earlier = Square(rgb=pen.tint(other), x=pen.place(), y=pen.place(), last=FRAMES // 2)
    later = Square(rgb=pen.tint(answer), x=pen.place(), y=pen.place(), first=FRAMES // 2)
    return Drawn(
        question="Which square is shown in this part?",
        options=[*map(_named, ASKED)],
        answer=_named(answer),
        squares=[earlier, later],
        span=(1.5, 3.0),
    )


def _object_shuffle(pen: Pen) -> Drawn:
    places = {"On the left.": 4, "In the middle.": 25, "On the right.": 46}
    answer = pen.evenly(list(places))
    start, between = pen.some([place for name, place in places.items() if name != answer], 2)
    color = pen.color()
    third, y = FRAMES // 3, pen.place()
    squares = [
        Square(rgb=color, x=x, y=y, first=n * third, last=(n + 1) * third)
        for n, x in enumerate([start, between, places[answer]])
    ]
    return Drawn(
        question="Where is the square at the end?",
        options=list(places),
        answer=answer,
        squares=squares,
    )


def _moving_direction(pen: Pen) -> Drawn:
    ways = {"Left.": (-1, 0), "Right.": (1, 0), "Up.": (0, -1), "Down.": (0, 1)}
    answer = pen.evenly(list(ways))
    return Drawn(
        question="In which direction does the square move?",
        options=list(ways),
        answer=answer,
        squares=[_way(pen, ways[answer])],
    )


def _action_localization(pen: Pen) -> Drawn:
    third = FRAMES // 3
    parts = {
        "At the beginning.": (0, third),
        "In the middle.": (third, 2 * third),
        "At the end.": (2 * third, FRAMES),
        "All the time.": (0, FRAMES),
    }
    answer = pen.evenly(list(parts))
    first, last = parts[answer]
    square = Square(rgb=pen.color(), x=pen.place(), y=pen.place(), first=first, last=last)
    return Drawn(
        question="When is the square there?",
        options=list(parts),
        answer=answer,
        squares=[square],
        span=(0.0, FRAMES / FPS),
    )


def _scene_transition(pen: Pen) -> Drawn:
    # Each end of a scene is that of another one too, or its beginning.
    options = [("red", "green"), ("green", "red"), ("red", "blue"), ("blue", "red")]
    first, second = pen.evenly(options)
    return Drawn(
        question="How does the scene change?",
        options=[f"From {one} to {two}." for one, two in options],
        answer=f"From {first} to {second}.",
        background=_screens(pen, [first, second], FRAMES // 2),
    )


def _action_count(pen: Pen) -> Drawn:
    answer = pen.evenly([1, 2, 3])
    square = Square(rgb=pen.color(), x=pen.place(), y=pen.place())
    return Drawn(
        question="How many times does the square flash?",
        options=["1", "2", "3"],
        answer=str(answer),
        squares=[replace(square, first=2 + 7 * n, last=6 + 7 * n) for n in range(answer)],
    )


def _moving_count(pen: Pen) -> Drawn:
    answer = pen.evenly([0, 1, 2, 3])
    rows = pen.some([2, 18, 34, 50], 4)
    colors = pen.some(ASKED, 4)
    squares = [
        _in_row(pen, color, y, n < answer)
        for n, (color, y) in enumerate(zip(colors, rows, strict=True))
    ]
    return Drawn(
        question="How many squares move?",
        options=["0", "1", "2", "3"],
        answer=str(answer),
        squares=squares,
    )


def _moving_attribute(pen: Pen) -> Drawn:
    colors = ASKED[:3]
    answer, others = _answered(pen, 2, colors)
    rows = pen.some([4, 25, 46], 3)
    squares = [
        _in_row(pen, color, y, color == answer)
        for color, y in zip([answer, *others], rows, strict=True)
    ]
    return Drawn(
        question="Which colour does the moving square have?",
        options=[*map(_named, colors)],
        answer=_named(answer),
        squares=squares,
    )


def _state_change(pen: Pen) -> Drawn:
    answer = pen.evenly(["Yes.", "No."])
    one, two = pen.some(ASKED, 2)
    # Where it ends as it began, it is another in between.
    screens = [one, one, two] if answer == "Yes." else [one, two, one]
    return Drawn(
        question="Does the screen end in another colour than it begins with?",
        options=["Yes.", "No.", UNSURE],
        answer=answer,
        background=_screens(pen, screens, FRAMES // 3),
    )


def _fine_grained_pose(pen: Pen) -> Drawn:
    steps = {
        "A row.": (18, 0),
        "A column.": (0, 18),
        "A diagonal.": (18, 18),
        "A single square.": (0, 0),
    }
    answer = pen.evenly(list(steps))
    color, (right, down) = pen.color(), steps[answer]
    x, y = (6 if step else pen.place() for step in (right, down))
    return Drawn(
        question="What do the squares form?",
        options=list(steps),
        answer=answer,
        squares=[Square(rgb=color, x=x + n * right, y=y + n * down) for n in range(3)],
    )


def _character_order(pen: Pen) -> Drawn:
    colors = ASKED[:2]
    options = [", ".join(colors), ", ".join(reversed(colors)), "Both at once"]
    answer = pen.evenly(options)
    late = {colors[1]: answer == options[0], colors[0]: answer == options[1]}
    squares = [
        Square(rgb=pen.tint(color), x=x, y=pen.place(), first=12 if late[color] else 3)
        for color, x in zip(colors, pen.some([6, 44], 2), strict=True)
    ]
    return Drawn(
        question="In which order do the squares appear?",
        options=options,
        answer=answer,
        squares=squares,
    )


def _egocentric_navigation(pen: Pen) -> Drawn:
    goals = {
        "Move forward.": (26, 4),
        "Turn left and move forward.": (4, 40),
        "Turn right and move forward.": (48, 40),
        "Stop.": (26, 40),
    }
    answer = pen.evenly(list(goals))
    x, y = goals[answer]
    right, down = pen.between(-4, 4), pen.between(-4, 4)
    goal = Square(rgb=pen.tint("green"), x=x + right, y=y + down, size=12)
    you = Square(rgb=pen.tint("white"), x=27 + right, y=42 + down, size=8)
    return Drawn(
        question="You are the white square and face up, the green one is your goal. What is next?",
        options=list(goals),
        answer=answer,
        squares=[goal, you],
    )


def _episodic_reasoning(pen: Pen) -> Drawn:
    colors = (*ASKED, "purple")
    answer, others = _answered(pen, 4, colors)
    part = pen.between(0, 4)
    screens = [*others[:part], answer, *others[part:]]
    length = FOLDER_FRAMES // 5
    # In the middle of the part, and of numbers that begin with 1.
    start = (part * length + 1) / FRAMES_FPS
    return Drawn(
        question="Which colour is shown in this part?",
        options=[*map(_named, colors)],
        answer=_named(answer),
        background=_screens(pen, screens, length),
        span=(round(start + 1 / FRAMES_FPS, 2), round(start + 4 / FRAMES_FPS, 2)),
    )


def _counterfactual_inference(pen: Pen) -> Drawn:
    answer = pen.evenly(["Yes.", "No."])
    mover, other = pen.some(ASKED, 2)
    removed = other if answer == "Yes." else mover
    rows = pen.some([8, 40], 2)
    squares = [_in_row(pen, mover, rows[0], True), _in_row(pen, other, rows[1], False)]
    return Drawn(
        question=f"If the {removed} square were not there, would anything move?",
        options=["Yes.", "No."],
        answer=answer,
        squares=squares,
    )


DRAW: tuple[Callable[[Pen], Drawn], ...] = (
    _action_sequence,
    _action_prediction,
    _action_antonym,
    _fine_grained_action,
    _unexpected_action,
    _object_existence,
    _object_interaction,
    _object_shuffle,
    _moving_direction,
    _action_localization,
    _scene_transition,
    _action_count,
    _moving_count,
    _moving_attribute,
    _state_change,
    _fine_grained_pose,
    _character_order,
    _egocentric_navigation,
    _episodic_reasoning,
    _counterfactual_inference,
)
"""What draws a question of each task, in the order of the tasks."""


def draw(task: Task, seed: int, count: int) -> Iterator[Drawn]:
    """Yield questions of a task; another seed gives others, to learn from."""
    number = TASKS.index(task)
    shift = int(np.random.default_rng([seed, number]).integers(60))
    for index in range(count):
        generator = np.random.default_rng([seed, number, index])
        yield DRAW[number](Pen(generator, index + shift))


def described(drawn: Drawn, fps: float = FPS) -> str:
    """Return in words what the span of a question shows: colours of the screen, and each square."""
    start, end = (at * fps for at in drawn.span or (0.0, FRAMES / FPS))

    def is_shown(part: Ground | Square) -> bool:
        return part.first <= end and part.last > start

    colors = [_color_of(ground.rgb) for ground in drawn.background if is_shown(ground)]
    said = [] if colors == [GREY_NAME] else [f"The screen is {', then '.join(colors)}."]
    said += [
        f"A {_color_of(square.rgb)} square {_motion(square)} {_place(square)}{_time(square)}."
        for square in drawn.squares
        if is_shown(square)
    ]
    return " ".join(said)


def _color_of(rgb: Sequence[int]) -> str:
    """Return the name of the colour that is nearest."""
    known = {**COLORS, GREY_NAME: GREY}
    return min(known, key=lambda name: float(np.abs(np.subtract(known[name], rgb)).max()))


def _motion(square: Square) -> str:
    if not square.dx and not square.dy:
        return "stays"
    to = {(1, 0): "right", (-1, 0): "left", (0, 1): "down", (0, -1): "up"}
    way = to[int(np.sign(square.dx)), int(np.sign(square.dy))]
    return f"moves {way} {'fast' if abs(square.dx + square.dy) == SPEED else 'slowly'}"


def _place(square: Square) -> str:
    """Return where a square is when it is first there."""
    column, row = ((2 * at + square.size) * 3 // (2 * SIZE_PX) for at in (square.x, square.y))
    down, across = ("top", "middle", "bottom")[row], ("left", "middle", "right")[column]
    return f"at the {down} {across}"


def _time(square: Square) -> str:
    """Return when a square is there, in thirds of the video; nothing where it is always."""
    if square.first == 0 and square.last == FRAMES:
        return ""
    thirds = ("beginning", "middle", "end")
    first, last = (at * 3 // FRAMES for at in (square.first, square.last - 1))
    return f" from the {thirds[first]} to the {thirds[last]}"
