"""A texture on a geom, laid on as MuJoCo's own GL renderer (4.x) lays it."""

from __future__ import annotations

import mujoco
import numpy as np

_PLANE, _BOX = int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_BOX)
_FLAT = int(mujoco.mjtTexture.mjTEXTURE_2D)
_RGB = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)
_SQRT2 = np.float32(2**0.5)


class Picture:
    """The texels of a texture: a picture, or the six of a cube, each with ever smaller copies.

    A point takes the texel of the copy whose texels are about as large as the pixel there, so that
    fine patterns melt into their mean instead of flickering.
    """

    def __init__(self, model: mujoco.MjModel, texture: int) -> None:
        texels = texels_of(model, texture).astype(np.float32) / 255
        self.height, self.width = texels.shape[:2]
        self.is_cube = model.tex_type[texture] != _FLAT
        faces = [texels]
        if self.is_cube and self.height == 6 * self.width:
            faces, self.height = np.split(texels, 6), self.width
        copies = [copy for face in faces for copy in _ever_smaller(face)]
        self._copies = len(copies) // len(faces)
        self._face_step = self._copies if len(faces) > 1 else 0
        self._height, self._width = np.array([copy.shape[:2] for copy in copies], np.int32).T
        sizes = self._height * self._width
        self._start = np.cumsum(sizes, dtype=np.int32) - sizes
        self._texels = np.concatenate([copy.reshape(-1, 3) for copy in copies])

    def colours(
        self, across: np.ndarray, down: np.ndarray, face: np.ndarray | int, texels: np.ndarray
    ) -> np.ndarray:
        """Colours, float32 [3, n] in 0..1.

        Args:
          across: float32 [n] in 0..1, from the picture's left edge.
          down: float32 [n] in 0..1, from its top edge.
          face: int [n], the cube's face in OpenGL's order (+x, -x, +y, -y, +z, -z).
          texels: float32 [n], how many texels of the picture a pixel is wide.
        """
        # frexp is exact, so every machine picks the same copy; log2 is not.
        copy = np.clip(np.frexp(texels * _SQRT2)[1] - 1, 0, self._copies - 1)
        copy += face * self._face_step
        height, width = self._height.take(copy), self._width.take(copy)
        x = np.minimum((across * width).astype(np.int32), width - 1)
        y = np.minimum((down * height).astype(np.int32), height - 1)
        return self._texels.take(self._start.take(copy) + y * width + x, axis=0).T


class Covering:
    """How a geom's texture lies on it."""

    def __init__(
        self, model: mujoco.MjModel, geom: int, picture: Picture, scale: np.ndarray
    ) -> None:
        """Takes the geom's texture.

        Args:
          model: the scene.
          geom: a geom with a texture.
          picture: the texture.
          scale: float32 [3], what the geom's points are divided by (`surface.unit_scale`).

        Raises:
          ValueError: a 2D texture lies on something else than a plane or a box.
        """
        self._picture = picture
        material, size = model.geom_matid[geom], model.geom_size[geom].astype(np.float32)
        uniform = bool(model.mat_texuniform[material])
        if picture.is_cube:
            self._repeat = size if uniform else np.ones(3, np.float32)
            self._texels_per_metre = np.float32(picture.width / (2 * scale.mean()))
            return
        if model.geom_type[geom] not in (_PLANE, _BOX):
            raise ValueError(
                f"geom {geom} ({model.geom(geom).name!r}) has a 2D texture and is neither plane "
                "nor box, which the `ray` renderer doesn't draw: use a texture of type cube, or "
                "the renderer osmesa or egl"
            )
        repeat = model.mat_texrepeat[material]
        repeat = np.where(repeat > 0, repeat, np.float32(1))
        endless = (size[:2] <= 0).any()
        self._repeat = repeat * np.where((size[:2] > 0) & uniform, size[:2], np.float32(1))
        self._shift = np.full(2, -0.5, np.float32) if endless else self._repeat / 2
        texels = self._repeat * (picture.width, picture.height) / (2 * scale[:2])
        self._texels_per_metre = np.float32(texels.mean())

    def colours(self, scaled: np.ndarray, normals: np.ndarray, width: np.ndarray) -> np.ndarray:
        """The texture's colours, float32 [3, n] in 0..1.

        Args:
          scaled: float32 [3, n], points in the geom's frame, divided by its scale.
          normals: float32 [3, n], in the geom's frame.
          width: float32 [n], how wide a pixel is on the surface, in metres.
        """
        if self._picture.is_cube:
            across, down, face = self._on_cube(scaled)
        else:
            across, down, face = self._on_face(scaled, normals)
        return self._picture.colours(across, down, face, width * self._texels_per_metre)

    def _on_face(
        self, scaled: np.ndarray, normals: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | int]:
        x, y, z = scaled
        on_x, on_y = normals[0] != 0, normals[1] != 0
        across = np.where(on_x, y, x) * (self._repeat[0] / 2) + self._shift[0]
        down = np.where(on_x | on_y, z, y) * (self._repeat[1] / -2) + self._shift[1]
        return across - np.floor(across), down - np.floor(down), 0

    def _on_cube(self, scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | int]:
        """OpenGL 4.6 core specification, section 8.13, table 8.19."""
        x, y, z = scaled * self._repeat[:, None]
        size_x, size_y, size_z = np.abs(x), np.abs(y), np.abs(z)
        on_x = (size_x >= size_y) & (size_x >= size_z)
        on_y = ~on_x & (size_y >= size_z)
        major = np.where(on_x, x, np.where(on_y, y, z))
        across = np.where(on_x, -z / major, np.where(on_y, x / np.abs(y), x / major))
        down = np.where(on_y, z / major, -y / np.abs(major))
        face = np.where(on_x, 0, np.where(on_y, 2, 4)) + (major < 0)
        return across / 2 + 0.5, down / 2 + 0.5, face


def coverings(model: mujoco.MjModel, visible: np.ndarray, scale: np.ndarray) -> dict[int, Covering]:
    """The coverings of all visible geoms (bool [ngeom]) that have a texture."""
    pictures: dict[int, Picture] = {}
    result = {}
    for geom in np.flatnonzero(visible & (model.geom_matid >= 0)).tolist():
        texture = int(model.mat_texid[model.geom_matid[geom], _RGB])
        if texture >= 0:
            if texture not in pictures:
                pictures[texture] = Picture(model, texture)
            result[geom] = Covering(model, geom, pictures[texture], scale[:, geom])
    return result


def texels_of(model: mujoco.MjModel, texture: int) -> np.ndarray:
    """A texture's colours, uint8 [height, width, 3]; a cube's six pictures are stacked."""
    height, width = int(model.tex_height[texture]), int(model.tex_width[texture])
    channels, start = int(model.tex_nchannel[texture]), int(model.tex_adr[texture])
    texels = model.tex_data[start : start + height * width * channels]
    return np.broadcast_to(texels.reshape(height, width, channels)[..., :3], (height, width, 3))


def _ever_smaller(picture: np.ndarray) -> list[np.ndarray]:
    """The picture [h, w, 3] and its copies of half the size each, down to one texel."""
    copies = [picture]
    while max(copies[-1].shape[:2]) > 1:
        last = copies[-1]
        even = np.pad(last, ((0, last.shape[0] % 2), (0, last.shape[1] % 2), (0, 0)), "edge")
        copies.append((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4)
    return copies
