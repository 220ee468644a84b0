"""The page of `rt2 data inspect`: one HTML file with everything in it, and no script."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from importlib import resources

import numpy as np

from rt2_jax.data.image import shrink
from rt2_jax.data.inspection import Field, Film, ShownStep, TaskInspection
from rt2_jax.data.inspection_svg import arrow, curve, gauge, histogram, planes
from rt2_jax.data.places import parse_places
from rt2_jax.data.vocabulary.tokenizer import Tokenizer

_STEP_SIDE, _FRAME_SIDE = 320, 128  # pixels
_COLOURS = ("#2f6f8f", "#c8752d", "#5b8c5a", "#8a5a83", "#b5483a", "#6b7a3a", "#3f5fa8", "#8c6d46")
_PLACE = re.compile(r"(?:<loc\d{4}>\s*){2}")


def inspection_page(
    mixture: str, split: str, tasks: Sequence[TaskInspection], tokenizer: Tokenizer
) -> str:
    """The page as HTML text."""
    style = resources.files("rt2_jax.data").joinpath("inspection.css").read_text("utf-8")
    robot = sum(task.share for task in tasks if task.info.robot)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(mixture)}</title>",
        "<meta name=viewport content='width=device-width'>",
        f"<style>{style}</style><main>",
        f"<header><h1>{escape(mixture)}</h1><p>split {escape(split)}, {len(tasks)} "
        f"task{'s' * (len(tasks) != 1)}, robots are {robot:.1%} of the examples</p>",
        _shares(tasks),
        "</header>",
    ]
    for number, task in enumerate(tasks):
        parts.append(_task(number, task, tokenizer))
    parts.append("</main></html>")
    return "".join(parts)


def _shares(tasks: Sequence[TaskInspection]) -> str:
    bars, legend = [], []
    for number, task in enumerate(tasks):
        colour, name = _COLOURS[number % len(_COLOURS)], escape(task.info.name)
        bars.append(f'<i style="flex:{task.share:.6f};background:{colour}" title="{name}"></i>')
        legend.append(
            f'<li><a href="#task{number}"><b style="background:{colour}"></b>{name}</a> '
            f"{task.share:.1%}"
        )
    return f"<div class=shares>{''.join(bars)}</div><ul class=legend>{''.join(legend)}</ul>"


def _task(number: int, task: TaskInspection, tokenizer: Tokenizer) -> str:
    info, colour = task.info, _COLOURS[number % len(_COLOURS)]
    facts = [
        ("share", f"{task.share:.1%}"),
        ("read", f"{task.steps:,} steps, {task.episodes:,} episodes ({task.origin})"),
        ("views", ", ".join(info.views) or "none"),
        ("prompt", info.prompt),
    ]
    if info.robot is not None:
        space = info.robot.action_space
        facts[1:1] = [
            ("robot", info.robot.embodiment),
            (
                "action space",
                f"{space.name}, {space.dimension} fields at {space.control_rate_hz:g} Hz",
            ),
            ("state", ", ".join(info.robot.state_fields) or "none"),
        ]
    rows = "".join(f"<dt>{key}<dd>{escape(value)}" for key, value in facts)
    parts = [
        f'<section id=task{number} style="--colour:{colour}"><h2>{escape(info.name)}</h2>',
        f"<dl class=facts>{rows}</dl>",
    ]
    parts += [
        "<h3>Numbers</h3><div class=grid>",
        *map(_field, task.fields),
        _lengths(task),
        "</div>",
    ]
    parts.append("<h3>Steps as the model sees them</h3>")
    if info.robot is not None and (drawn := planes(info.robot.action_space)):
        frame = info.robot.action_space.fields[drawn[0][1]].frame
        parts.append(
            f"<p class=note>Arrows: grey is recorded, colour is what the tokens decode to, the rim "
            f"is the greatest bound. They are in the {escape(frame)} frame; where the camera "
            "stands is not known, so they are not drawn over the picture.</p>"
        )
    parts += [_step(task, shown, tokenizer) for shown in task.shown]
    if task.films:
        parts.append("<h3>Episodes</h3>")
        parts += [_film(task, film) for film in task.films]
    return "".join([*parts, "</section>"])


def _field(field: Field) -> str:
    if field.levels:
        ends = "".join(
            f"<span>{escape(level)} {count:,}</span>"
            for level, count in zip(field.levels, field.counts, strict=True)
        )
        marks: tuple[float, ...] = ()
    else:
        marks = (field.low, field.high)
        ends = f"<span>{field.edges[0]:.3g}</span><span>{field.edges[-1]:.3g}</span>"
    alarm = " class=alarm" if field.alarming else ""
    unit = "" if field.unit in ("1", "level") else f" <small>{escape(field.unit)}</small>"
    bounds = "" if field.levels else f", bounds {field.low:.3g} to {field.high:.3g}"
    return (
        f'<figure title="{escape(field.meaning)}"><figcaption>{escape(field.name)}{unit}'
        f"</figcaption>{histogram(field.counts, field.edges, marks)}<div class=ends>{ends}</div>"
        f"<p{alarm}>{field.bins_used} of {field.bins} bins in use, {field.clipped:.1%} clipped"
        f"{bounds}</p></figure>"
    )


def _lengths(task: TaskInspection) -> str:
    parts = []
    for i, name in enumerate(("prompt", "target")):
        lengths = task.lengths[:, i]
        edges = np.arange(lengths.min(), lengths.max() + 2) - 0.5
        counts, edges = np.histogram(lengths, edges if len(edges) <= 48 else 48)
        parts.append(
            f"<figure><figcaption>{name} <small>tokens</small></figcaption>"
            f"{histogram(counts, edges)}<div class=ends><span>{lengths.min()}</span>"
            f"<span>{lengths.max()}</span></div><p>{lengths.mean():.1f} on average, end included, "
            f"of {len(lengths):,} steps</p></figure>"
        )
    return "".join(parts)


def _step(task: TaskInspection, shown: ShownStep, tokenizer: Tokenizer) -> str:
    step, robot = shown.step, task.info.robot
    places = step.target if robot else shown.target
    pictures = "".join(
        f"<figure>{_picture(data, _STEP_SIDE, places if i == 0 else '')}"
        f"<figcaption>{escape(view)}</figcaption></figure>"
        for i, (view, data) in enumerate(zip(task.info.views, step.images, strict=True))
    )
    texts = [
        f"<p class=where>episode {step.episode} ({escape(step.episode_id)}), step {step.step}</p>",
        _said("prompt", shown.prompt, shown.prompt_ids, tokenizer),
    ]
    if robot and step.target:
        texts.append(_said("plan", step.target, tuple(tokenizer.encode(step.target)), tokenizer))
    texts.append(_said("target", shown.target, shown.target_ids, tokenizer))
    actions = _action(task, shown) if robot else ""
    return (
        f"<article><div class=pictures>{pictures}</div><div class=texts>{''.join(texts)}</div>"
        f"{actions}</article>"
    )


def _said(name: str, text: str, ids: Sequence[int], tokenizer: Tokenizer) -> str:
    chips = "".join(
        f"<span><b>{escape(tokenizer.id_to_piece(id).replace(chr(0x2581), ' ').strip() or '␣')}</b>"
        f"{id}</span>"
        for id in ids
    )
    return (
        f"<div class=said><h4>{name}</h4><p>{escape(text)}</p><details{' open' * (len(ids) <= 12)}>"
        f"<summary>{len(ids)} tokens</summary><div class=chips>{chips}</div></details></div>"
    )


def _action(task: TaskInspection, shown: ShownStep) -> str:
    assert task.info.robot is not None
    space, action = task.info.robot.action_space, shown.step.action
    words = shown.target.split(" ")
    rows = []
    for i, field in enumerate(task.fields):
        value, decoded = (round(float(x[i]), 4) + 0.0 for x in (action, shown.decoded))
        if field.levels:
            cells = f"<td colspan=2>{escape(field.levels[int(value)])}<td>{words[i]}<td>"
        else:
            note = " class=alarm" if shown.clipped[i] else ""
            cells = (
                f"<td{note}>{value:.4f}<td>{decoded:.4f}<td>{words[i]}<td>"
                f"{gauge(field, value, decoded)}"
            )
        rows.append(f"<tr><th>{escape(field.name)}{cells}")
    drawn = []
    for title, a, b in planes(space):
        reach = max(abs(x) for i in (a, b) for x in (task.fields[i].low, task.fields[i].high))
        recorded, decoded_pair = (
            (float(values[a]), float(values[b])) for values in (action, shown.decoded)
        )
        labels = space.fields[a].name[-1] + space.fields[b].name[-1]
        drawn.append(
            f"<figure>{arrow(recorded, decoded_pair, reach, labels)}<figcaption>{title}"
            "</figcaption></figure>"
        )
    return (
        f"<div class=action><div class=arrows>{''.join(drawn)}</div><table><tr><th>field"
        f"<td>recorded<td>decoded<td>bin<td>{''.join(rows)}</table></div>"
    )


def _film(task: TaskInspection, film: Film) -> str:
    first = film.steps[0]
    rows = []
    for i in range(len(task.info.views)):
        frames = "".join(
            f"<figure>{_picture(step.images[i], _FRAME_SIDE)}<figcaption>{step.step}</figcaption>"
            "</figure>"
            for step in film.steps
        )
        rows.append(f"<div class=film>{frames}</div>")
    curves = "".join(
        f"<figure><figcaption>{escape(field.name)}</figcaption>"
        f"{curve(film.actions[:, i], field.low, field.high)}</figure>"
        for i, field in enumerate(task.fields)
    )
    return (
        f"<article class=episode><p class=where>episode {first.episode} "
        f"({escape(first.episode_id)}), {len(film.actions)} steps</p><p>{escape(first.text)}</p>"
        f"{''.join(rows)}<div class=curves>{curves}</div></article>"
    )


def _picture(data: bytes, side: int, places: str = "") -> str:
    """An `img` with its bytes in it, and marks at the places that a text names."""
    small = shrink(data, side)
    kind = "png" if small.startswith(b"\x89PNG") else "jpeg"
    image = f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(small).decode()}">'
    names = [name.strip() for name in _PLACE.split(places)]
    named: dict[tuple[float, float], list[str]] = {}
    for place, name in zip(parse_places(places), names, strict=False):
        named.setdefault(place, []).append(name)
    marks = "".join(
        f"<i class={'left' if x > 0.6 else 'right'} "
        f'style="left:{100 * x:.1f}%;top:{100 * y:.1f}%"><u>{escape(", ".join(at))}</u></i>'
        for (y, x), at in named.items()
    )
    return f"<div class=picture>{image}{marks}</div>"
