"""The stepper: scenes to step through with buttons, a slider or the keyboard.

It is one piece of HTML that contains the scenes as data. So the same stepper works in a notebook
and in a page saved from it, without a kernel and without a network. Where scripts do not run, it
shows the first picture and the text form.
"""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from lrscan.evidence import context, figures
from lrscan.learn.scenes.scene import Scene

_serial_numbers = itertools.count()


class Player:
    """Scenes side by side under one set of controls.

    Args:
        panels: one per picture: a scene, or several scenes by name to choose from
        labels: the label of the choice in each panel
        autoplay: start to play when the page opens, unless the reader prefers reduced motion

    Raises:
        ValueError: a panel has no scene, or there are no panels
    """

    def __init__(
        self,
        *panels: Scene | Mapping[str, Scene],
        labels: Sequence[str] = (),
        autoplay: bool = False,
    ) -> None:
        self.panels = [
            {panel.title: panel} if isinstance(panel, Scene) else dict(panel) for panel in panels
        ]
        if not self.panels or not all(self.panels):
            raise ValueError("a player needs at least one scene in every panel")
        self.autoplay = autoplay
        self.labels = [*labels, *["show"] * (len(self.panels) - len(labels))]

    def text(self) -> str:
        """Return every scene in words."""
        scenes = {id(scene): scene for panel in self.panels for scene in panel.values()}
        return "\n\n".join(scene.text() for scene in scenes.values())

    def html(self) -> str:
        """Return a self-contained piece of a page."""
        scenes: list[Scene] = []
        panels = []
        for label, panel in zip(self.labels, self.panels, strict=True):
            choices = []
            for name, scene in panel.items():
                if not any(scene is one for one in scenes):
                    scenes.append(scene)
                choices.append([name, next(k for k, s in enumerate(scenes) if s is scene)])
            panels.append({"label": label, "choices": choices})
        drawn = [scene.svg() for scene in scenes]
        data = {
            "panels": panels,
            "scenes": [
                {"svg": svg, "shapes": shapes, "captions": scene.captions, "alt": scene.alt}
                for scene, (svg, shapes) in zip(scenes, drawn, strict=True)
            ],
        }
        # "</" would end the script.
        text = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
        source = files("lrscan.learn.scenes")
        sources = (source.joinpath(f"player.{kind}") for kind in ("css", "js"))
        style, script = (file.read_text("utf-8") for file in sources)
        root = f"lrscan-player-{next(_serial_numbers)}"
        name = html.escape(scenes[0].title, quote=True)
        return (
            f"<style>{style}</style>\n"
            f'<div id="{root}" class="lrscan-player" tabindex="0" role="group" '
            f'aria-label="Stepper: {name}" data-lm-suppress-shortcuts="true"'
            f"{' data-autoplay' * self.autoplay}>\n"
            f'<div class="static">{drawn[0][0]}</div>\n'
            f"<details><summary>in words (keys: left, right, Home, End, space)</summary>"
            f"<pre>{html.escape(self.text())}</pre></details>\n</div>\n"
            f'<script>{script.strip()}(document.getElementById("{root}"), {text});</script>'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": self.text()}


def show(scene: Scene, name: str, *others: Scene, frame: int | None = None) -> Player:
    """Save the static picture of a scene as a figure, and return its stepper.

    Args:
        scene:  the scene
        name:   the name of the figure
        others: further scenes for the stepper, shown with the first one
        frame:  the frame of the static picture; by default it shows everything
    """
    figures.save(scene.figure(frame), name, None, alt=scene.alt)
    return Player(scene, *others)


def compare(scenes: Mapping[str, Scene], left: str, right: str) -> Player:
    """Return a stepper with the same scenes to choose from on both sides.

    Args:
        scenes: the scenes by name
        left:   the name of the scene that is on the left at first
        right:  the name of the scene that is on the right at first
    """
    panels = [{name: scenes[name]} | dict(scenes) for name in (left, right)]
    return Player(*panels, labels=("left:", "right:"))


def explore(
    scenes: Mapping[str, Callable[..., Scene]], a: str = "1 2 0 1", x: str = "3 1 4 1"
) -> Any:
    """Return a stepper for two algorithms, with boxes to type the input into.

    It needs a running kernel, because the algorithms run again after every change. In a headless
    run, where nobody can type, it is the plain stepper for the first input.

    Args:
        scenes: for each name, a function of (a, x, h0) that draws a scene
        a:      the first coefficients, as numbers separated by spaces
        x:      the first inputs, as numbers separated by spaces

    Returns:
        A container of ipywidgets, or a :class:`Player`.
    """
    names = list(scenes)
    if context.current().headless:
        numbers = read_numbers(a, x, "0")
        return compare({name: draw(*numbers) for name, draw in scenes.items()}, names[0], names[-1])
    import ipywidgets
    from IPython.display import display

    controls = {
        "left": ipywidgets.Dropdown(options=names, value=names[0], description="left"),
        "right": ipywidgets.Dropdown(options=names, value=names[-1], description="right"),
        "a": ipywidgets.Text(a, description="a", continuous_update=False),
        "x": ipywidgets.Text(x, description="x", continuous_update=False),
        "h0": ipywidgets.Text("0", description="h0", continuous_update=False),
    }

    def draw(left: str, right: str, a: str, x: str, h0: str) -> None:
        try:
            numbers = read_numbers(a, x, h0)
        except ValueError as error:
            print(error)
            return
        display(Player(*(scenes[name](*numbers) for name in (left, right))))

    output = ipywidgets.interactive_output(draw, controls)
    rows = [ipywidgets.HBox([controls[n] for n in row]) for row in (("left", "right"), "ax")]
    return ipywidgets.VBox([*rows, controls["h0"], output])


LONGEST_INPUT = 16


def read_numbers(a: str, x: str, h0: str) -> tuple[list[float], list[float], float]:
    """Read typed numbers.

    Raises:
        ValueError: a word is not a number, there are too few or too many numbers, or a and x
            differ in length
    """

    def one(word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            raise ValueError(f"{word!r} is not a number") from None
        return int(value) if value.is_integer() else value

    first, second = [[one(word) for word in text.replace(",", " ").split()] for text in (a, x)]
    if not 1 <= len(first) <= LONGEST_INPUT:
        raise ValueError(f"a has {len(first)} numbers, expected 1 to {LONGEST_INPUT}")
    if len(first) != len(second):
        raise ValueError(f"a has {len(first)} numbers, but x has {len(second)}")
    return first, second, one(h0.strip() or "0")
