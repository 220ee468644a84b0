"""Which way the surface faces where a ray has hit a geom, in the geom's own frame."""

from __future__ import annotations

import mujoco
import numpy as np

_PLANE, _SPHERE, _CAPSULE, _ELLIPSOID, _CYLINDER, _BOX, _MESH = SURFACES = tuple(
    int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}"))
    for name in ("PLANE", "SPHERE", "CAPSULE", "ELLIPSOID", "CYLINDER", "BOX", "MESH")
)
_SAME_PLANE = np.float32(1e-5)  # metres: above what float32 rounds away in a scene of some metres


class MeshFaces:
    """Finds which way a mesh faces at a point of its surface.

    Triangles of one plane make a facet. Most points lie on one facet's plane. Those on several are
    settled triangle by triangle: the distances from a triangle's plane and outside its three edges
    are linear functions of the point, and the largest of them is least for the triangle it lies on.
    """

    def __init__(self, model: mujoco.MjModel, mesh: int) -> None:
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        vertices = model.mesh_vert[first : first + count].astype(np.float64)
        first, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        corners = vertices[model.mesh_face[first : first + count]]  # [triangles, 3, 3]
        edges = np.roll(corners, -1, axis=1) - corners
        normals = np.cross(edges[:, 0], edges[:, 1])
        areas = np.linalg.norm(normals, axis=1)
        keep = areas > 1e-12 * np.max(areas)
        corners, edges = corners[keep], edges[keep]
        normals = normals[keep] / areas[keep, None]
        outward = np.cross(edges, normals[:, None])
        outward /= np.linalg.norm(outward, axis=2, keepdims=True)
        planes = np.column_stack([normals, (normals * corners[:, 0]).sum(axis=1)])
        borders = np.dstack([outward, (outward * corners).sum(axis=2)])
        _, first_of, self._facet = np.unique(
            planes.round(6), axis=0, return_index=True, return_inverse=True
        )
        self._normals = np.ascontiguousarray(normals[first_of].T, np.float32)
        self._planes = planes[first_of].T.astype(np.float32)[..., None]  # [4, facets, 1]
        triangles = np.concatenate([planes[:, None], borders], axis=1)
        self._triangles = triangles.transpose(1, 2, 0).astype(np.float32)[..., None]  # [4, 4, n, 1]

    def normals_at(self, points: np.ndarray) -> np.ndarray:
        """Unit normals, float32 [3, n], at `points` float32 [3, n] of the surface."""
        away = np.abs(_outside(self._planes, points))
        facet = away.argmin(axis=0)
        doubtful = np.flatnonzero((away < _SAME_PLANE).sum(axis=0) > 1)
        if len(doubtful):
            points = points.take(doubtful, axis=1)
            worst = np.abs(_outside(self._triangles[0], points))
            for border in self._triangles[1:]:
                worst = np.maximum(worst, _outside(border, points))
            facet[doubtful] = self._facet.take(worst.argmin(axis=0))
        return self._normals.take(facet, axis=1)


def _outside(planes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How far `points` [3, n] lie before `planes` [4, m, 1] (normal, offset): float32 [m, n]."""
    x, y, z, offset = planes
    return x * points[0] + y * points[1] + z * points[2] - offset


class Surfaces:
    """The normals of every geom of a scene."""

    def __init__(self, model: mujoco.MjModel, visible: np.ndarray) -> None:
        self.scale = unit_scale(model)
        self._kind = model.geom_type.copy()
        self._kinds = np.unique(self._kind[visible])
        meshes = np.flatnonzero(visible & (self._kind == _MESH))
        self._faces = {geom: MeshFaces(model, model.geom_dataid[geom]) for geom in meshes}

    def normals(self, geom: np.ndarray, points: np.ndarray, scaled: np.ndarray) -> np.ndarray:
        """Unit normals, float32 [3, n].

        Args:
          geom: int [n], which geom each point lies on.
          points: float32 [3, n], in the geom's frame.
          scaled: float32 [3, n], the points divided by `scale`.
        """
        normals = _box(scaled)
        found = self._kind.take(geom)
        for kind in self._kinds:
            at = np.flatnonzero(found == kind)
            if kind == _PLANE:
                put(normals, at, np.array([[0], [0], [1]], np.float32))
            elif kind in _ROUND:
                scale = self.scale.take(geom.take(at), axis=1)
                put(normals, at, _ROUND[kind](points.take(at, axis=1), scale))
        for mesh, faces in self._faces.items():
            at = np.flatnonzero(geom == mesh)
            if len(at):
                put(normals, at, faces.normals_at(points.take(at, axis=1)))
        return normals


def put(rows: np.ndarray, at: np.ndarray, values: np.ndarray) -> None:
    """`rows[:, at] = values`, several times faster."""
    for row, value in zip(rows, values, strict=True):
        row[at] = value


def unit_scale(model: mujoco.MjModel) -> np.ndarray:
    """Half lengths of every geom, float32 [3, ngeom]: points divided by them lie within -1..1.

    Meshes and infinite planes aren't scaled.
    """
    scale = model.geom_size.T.astype(np.float32)
    kind = model.geom_type
    scale[1:, kind == _SPHERE] = scale[0, kind == _SPHERE]
    long = (kind == _CAPSULE) | (kind == _CYLINDER)
    scale[2, long], scale[1, long] = scale[1, long], scale[0, long]
    scale[:, kind == _MESH] = 1
    scale[2, kind == _PLANE] = 1
    return np.where(scale > 0, scale, np.float32(1))


def _box(scaled: np.ndarray) -> np.ndarray:
    x, y, z = np.abs(scaled)
    on_x = (x >= y) & (x >= z)
    on_y = ~on_x & (y >= z)
    return np.sign(scaled) * np.stack([on_x, on_y, ~(on_x | on_y)])


def _ellipsoid(points: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return _unit(points / (scale * scale))


def _cylinder(points: np.ndarray, scale: np.ndarray) -> np.ndarray:
    x, y, z = points / scale
    radius = np.sqrt(x * x + y * y)
    cap = np.abs(z) >= radius
    side = ~cap / np.where(cap, np.float32(1), radius)
    return np.stack([x * side, y * side, np.sign(z) * cap])


def _capsule(points: np.ndarray, scale: np.ndarray) -> np.ndarray:
    x, y, z = points
    return _unit(np.stack([x, y, z - np.clip(z, -scale[2], scale[2])]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    x, y, z = vectors
    return vectors / np.sqrt(x * x + y * y + z * z)


_ROUND = {_SPHERE: _ellipsoid, _ELLIPSOID: _ellipsoid, _CAPSULE: _capsule, _CYLINDER: _cylinder}
