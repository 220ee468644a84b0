"""Pictures of the world's things without a robot, as a folder in COCO's format: small web data."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import io
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from PIL import Image

from rt2_jax import __version__
from rt2_jax.actions.identity import differences
from rt2_jax.sim.mjcf import build_model
from rt2_jax.sim.picture_texts import NUMBERS, Thing, describe, question_and_answer
from rt2_jax.sim.render import RenderSettings, make_renderer
from rt2_jax.sim.render.camera import find_view
from rt2_jax.sim.scene import Scene, sample_still
from rt2_jax.sim.workers import count_jobs, ordered_results
from rt2_jax.sim.world import World, load_world

STYLES = ("front", "mirrored", "moved", "top")
FOLDER = "rt2_pictures"
GENERATOR_VERSION = 1  # raise it by one whenever the same settings give other bytes
VALIDATION_SEED = 1_000_000_000  # added to the seed; no training scene is there
_SHARD_SCENES = 50
_INFO, _SHARDS, _IMAGES, _LAST = "info.json", "shards", "images", "instances.json"
_UNFINISHED = ".incomplete"
_LEAST_SIDE = 3.0  # pixels; of what is cut off by the edge, less is not to be named


@dataclasses.dataclass(frozen=True)
class PictureSettings:
    """What is drawn. Scene i is that of `seed + i`; each gives one picture in every style.

    Attributes:
      scenes: of the training folder.
      validation_scenes: of the other; their seeds are far away.
      seed: of the first scene.
      objects: the least and the greatest number of things on the table. Scenes of one thing are
        what lets a small model begin to connect names with what it sees.
      symbols: whether cubes with letters and digits may be among them. They cannot be read at 64
        pixels.
      styles: `front` is what the robot sees; `mirrored` is that, left and right swapped (never with
        symbols); `moved` is seen from nearby places with another zoom; `top` is from above,
        without shadows.
      size: height and width in pixels.
      world: the vocabulary.

    Raises:
      ValueError: a number out of its range, an unknown style, or no room for so many objects.
    """

    scenes: int = 10_000
    validation_scenes: int = 500
    seed: int = 0
    objects: tuple[int, int] = (1, 6)
    symbols: bool = False
    styles: tuple[str, ...] = STYLES
    size: int = 64
    world: World = dataclasses.field(default_factory=load_world)

    def __post_init__(self) -> None:
        styles = set(self.styles)
        if not styles or len(styles) < len(self.styles) or styles - set(STYLES):
            raise ValueError(
                f"styles: found {list(self.styles)}, expected some of {list(STYLES)}, each once"
            )
        if self.symbols and "mirrored" in self.styles:
            raise ValueError("styles: symbols cannot be mirrored; leave out the one or the other")
        if self.scenes < 1 or self.validation_scenes < 0 or self.seed < 0:
            raise ValueError(
                f"scenes: found {self.scenes}, {self.validation_scenes} for validation and seed "
                f"{self.seed}; expected 1 or more, 0 or more, and 0 or more"
            )
        if self.seed + max(self.scenes, self.validation_scenes) > VALIDATION_SEED:
            raise ValueError(
                f"seed: found {self.seed} and {self.scenes} scenes, expected their sum to be at "
                f"most {VALIDATION_SEED}, where the seeds of validation begin"
            )
        if self.objects[1] >= len(NUMBERS):
            raise ValueError(
                f"objects: found {self.objects[0]} to {self.objects[1]}, expected at most "
                f"{len(NUMBERS) - 1}: texts have words for no more"
            )
        # The fullest scene shows whether there is room.
        for objects in (self.objects, (self.objects[1],) * 2):
            sample_still(self.world, self.seed, objects, self.symbols)
        RenderSettings(height=self.size, width=self.size)

    def to_json(self) -> dict[str, Any]:
        """What decides every byte."""
        plain = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "world"
        }
        return {
            **json.loads(json.dumps(plain)),
            "world_hash": self.world.hash,
            "render": RenderSettings(height=self.size, width=self.size).to_json(),
            "generator_version": GENERATOR_VERSION,
            "rt2_jax": __version__,
        }


def draw_pictures(
    settings: PictureSettings,
    out: str | pathlib.Path,
    *,
    jobs: int | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> pathlib.Path:
    """Draws into `out/rt2_pictures`, or goes on where an earlier call stopped.

    `train/` and `validation/` each hold `images/`, `captions.json` and `instances.json` (COCO),
    `vqa_questions.json` and `vqa_annotations.json` (VQAv2). The bytes depend on the settings alone.
    A finished folder is left as it is.

    Args:
      settings: what to draw.
      out: a folder; it is made if need be.
      jobs: how many processes draw; as many as there are processors if absent.
      report: is told how many scenes are drawn: at the beginning, and after each part.

    Returns:
      The folder.

    Raises:
      ValueError: pictures of other settings stand there; nothing is changed.
      OSError: the folder cannot be written, another process draws into it, or a process was
        killed; what is drawn stays.
    """
    jobs = count_jobs(jobs)
    folder = pathlib.Path(out) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with _only_artist(folder):
        _check_settings(folder, settings)
        splits = {
            split: list(_parts(folder / split, first, count, len(settings.styles)))
            for split, first, count in (
                ("train", settings.seed, settings.scenes),
                ("validation", settings.seed + VALIDATION_SEED, settings.validation_scenes),
            )
            if count
        }
        parts = list(itertools.chain.from_iterable(splits.values()))
        missing = [part for part in parts if not part.done()]
        done = sum(part.count for part in parts) - sum(part.count for part in missing)
        report(done)
        if missing:
            for split in splits:
                (folder / split / _IMAGES).mkdir(parents=True, exist_ok=True)
                (folder / split / _SHARDS).mkdir(exist_ok=True)
            with ordered_results(
                _draw_part,
                missing,
                jobs=jobs,
                start=_start_worker,
                start_with=(settings,),
                doing="drawing",
            ) as drawn:
                for part in drawn:
                    done += part.count
                    report(done)
        for split, its_parts in splits.items():
            if not (folder / split / _LAST).is_file():
                _merge(its_parts, settings.world)
            if (folder / split / _SHARDS).is_dir():
                shutil.rmtree(folder / split / _SHARDS)
    return folder


@contextlib.contextmanager
def _only_artist(folder: pathlib.Path) -> Iterator[None]:
    """Keeps others out of the folder; the system lets go when this process ends."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise OSError(
            f"another process is drawing into {folder}; wait until it has finished, or choose "
            "another folder"
        ) from error
    finally:
        os.close(lock)


@dataclasses.dataclass(frozen=True)
class _Part:
    """Some scenes of a split; what is known of their pictures is in `file` when all are drawn."""

    folder: pathlib.Path
    number: int
    first_image: int
    seed: int
    count: int

    @property
    def file(self) -> pathlib.Path:
        return self.folder / _SHARDS / f"{self.number:06d}.json"

    def done(self) -> bool:
        return self.file.is_file() or (self.folder / _LAST).is_file()


def _parts(folder: pathlib.Path, seed: int, count: int, styles: int) -> Iterator[_Part]:
    for number, start in enumerate(range(0, count, _SHARD_SCENES)):
        scenes = min(_SHARD_SCENES, count - start)
        yield _Part(folder, number, start * styles, seed + start, scenes)


def _check_settings(folder: pathlib.Path, settings: PictureSettings) -> None:
    """Writes the settings beside the pictures, or compares them with those that stand there."""
    file, ours = folder / _INFO, settings.to_json()
    if file.is_file():
        lines = differences(json.loads(file.read_text()), ours)
        if lines:
            raise ValueError(
                f"{folder} holds pictures of other settings ({'; '.join(lines)}); choose another "
                "folder, or delete this one"
            )
        return
    if {path.name for path in folder.iterdir()} - {_INFO + _UNFINISHED}:
        raise ValueError(f"{folder} holds something else, and no {_INFO}; choose another folder")
    _write(file, ours)


class _Artist:
    """Draws scenes; keep it, for renderers are slow to make."""

    def __init__(self, settings: PictureSettings) -> None:
        self._settings = settings
        size = settings.size
        self._renderer = make_renderer(RenderSettings(height=size, width=size))
        self._flat = make_renderer(RenderSettings(height=size, width=size, shadows=False))

    def draw(self, seed: int) -> Iterator[tuple[str, np.ndarray, list[Thing]]]:
        """(style, uint8 [size, size, 3], what is to be seen) for each style."""
        settings = self._settings
        scene = sample_still(settings.world, seed, settings.objects, settings.symbols)
        model = build_model(settings.world, scene, robot=False)
        data = mujoco.MjData(model)
        if set(settings.styles) - {"top"}:
            self._renderer.load(model)
        if "top" in settings.styles:
            self._flat.load(model)
        seen: dict[str, tuple[np.ndarray, list[Thing]]] = {}
        for style in settings.styles:
            view = "front" if style == "mirrored" else style
            if view not in seen:
                seen[view] = self._look(model, data, scene, view)
            image, things = seen[view]
            if style == "mirrored":
                image = image[:, ::-1]
                things = [thing.mirrored(settings.size) for thing in things]
            yield style, image, things

    def _look(
        self, model: mujoco.MjModel, data: mujoco.MjData, scene: Scene, style: str
    ) -> tuple[np.ndarray, list[Thing]]:
        camera = "top" if style == "top" else "front"
        number = model.camera(camera).id
        before = model.cam_pos[number].copy(), model.cam_fovy[number].copy()
        if style == "moved":
            random = np.random.default_rng((scene.seed, 1))
            model.cam_pos[number] += random.uniform(-0.03, 0.03, 3)
            model.cam_fovy[number] *= random.uniform(0.85, 1.1)
        mujoco.mj_forward(model, data)
        image = (self._flat if style == "top" else self._renderer).render(data, camera)
        things = _things(model, data, scene, camera, self._settings.size)
        model.cam_pos[number], model.cam_fovy[number] = before
        return image, things


def _things(
    model: mujoco.MjModel, data: mujoco.MjData, scene: Scene, camera: str, size: int
) -> list[Thing]:
    """The objects whose middle is in the picture, with their boxes in pixels."""
    view = find_view(model, data, camera, size)
    things = []
    for index, thing in enumerate(scene.objects):
        rows, columns = size / 2 + view.project(_corners(model, data, index)).T
        left, right = np.clip((columns.min(), columns.max()), 0, size)
        top, bottom = np.clip((rows.min(), rows.max()), 0, size)
        middle = (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2
        whole = min(right - left, bottom - top) >= _LEAST_SIDE
        if whole and 0 <= min(middle) and max(middle) < size:
            box = tuple(round(float(v), 2) for v in (left, top, right - left, bottom - top))
            things.append(Thing(thing.name, thing.shape, thing.colour, box))  # type: ignore[arg-type]
    return things


def _corners(model: mujoco.MjModel, data: mujoco.MjData, index: int) -> np.ndarray:
    """All corners of an object, float [n, 3], metres."""
    geom = int(model.body(f"object_{index}").geomadr[0])
    mesh = int(model.geom_dataid[geom])
    if mesh >= 0:
        begin = model.mesh_vertadr[mesh]
        points = model.mesh_vert[begin : begin + model.mesh_vertnum[mesh]]
    else:
        points = np.array(list(itertools.product((-1, 1), repeat=3))) * model.geom_size[geom]
    return points @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]


_artist: _Artist  # one in each worker process


def _start_worker(settings: PictureSettings) -> None:
    global _artist
    _artist = _Artist(settings)


def _draw_part(part: _Part) -> _Part:
    entries = []
    image_id = part.first_image
    for offset in range(part.count):
        for style, image, things in _artist.draw(part.seed + offset):
            random = np.random.default_rng((part.seed + offset, 2, STYLES.index(style)))
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=95, subsampling=0)
            (part.folder / _IMAGES / _file_name(image_id)).write_bytes(file.getvalue())
            size = len(image)
            question, answer = question_and_answer(things, size, _artist._settings.world, random)
            entries.append(
                {
                    "id": image_id,
                    "scene": part.seed + offset,
                    "style": style,
                    "size": size,
                    "things": [dataclasses.asdict(thing) for thing in things],
                    "caption": describe(things, size, random),
                    "question": question,
                    "answer": answer,
                }
            )
            image_id += 1
    _write(part.file, entries)
    return part


def _file_name(image_id: int) -> str:
    return f"{image_id:012d}.jpg"


def _merge(parts: Sequence[_Part], world: World) -> None:
    """Makes COCO's and VQAv2's files of what the parts know; boxes come last."""
    folder = parts[0].folder
    names = [f"{colour} {shape}" for colour in world.colours for shape in world.shapes]
    names += [f"{symbol} cube" for symbol in world.symbols]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
    number = {name: i + 1 for i, name in enumerate(names)}
    images: list[Mapping[str, Any]] = []
    captions: list[Mapping[str, Any]] = []
    boxes: list[Mapping[str, Any]] = []
    questions: list[Mapping[str, Any]] = []
    answers: list[Mapping[str, Any]] = []
    for part in parts:
        for entry in json.loads(part.file.read_text()):
            image = entry["id"]
            images.append(
                {
                    "id": image,
                    "file_name": _file_name(image),
                    "height": entry["size"],
                    "width": entry["size"],
                    "scene": entry["scene"],
                    "style": entry["style"],
                }
            )
            captions.append({"id": image, "image_id": image, "caption": entry["caption"]})
            questions.append(
                {"question_id": image, "image_id": image, "question": entry["question"]}
            )
            answers.append(
                {
                    "question_id": image,
                    "image_id": image,
                    "multiple_choice_answer": entry["answer"],
                    "answers": [{"answer": entry["answer"], "answer_id": 1}],
                }
            )
            for thing in entry["things"]:
                boxes.append(
                    {
                        "id": len(boxes) + 1,
                        "image_id": image,
                        "category_id": number[thing["name"]],
                        "bbox": thing["box"],
                        "area": round(thing["box"][2] * thing["box"][3], 2),
                        "iscrowd": 0,
                    }
                )
    _write(folder / "captions.json", {"images": images, "annotations": captions})
    _write(folder / "vqa_questions.json", {"questions": questions})
    _write(folder / "vqa_annotations.json", {"annotations": answers})
    _write(folder / _LAST, {"images": images, "categories": categories, "annotations": boxes})


def _write(path: pathlib.Path, data: Any) -> None:
    """A file that is there whole or not at all."""
    unfinished = path.with_name(path.name + _UNFINISHED)
    unfinished.write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")
    unfinished.replace(path)
