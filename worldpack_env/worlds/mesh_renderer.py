"""Pictures of block meshes, drawn without a display: OpenGL 4.3 through EGL (Mesa's software renderer will do), by moderngl.

The camera is the project's (``worldpack_model.geometry``); brightness of faces, sky and fog are Minecraft's. Meshes come in columns of 16 x 16 blocks
whose faces are grouped by where they look (``node/mesh.js``), so that whole groups that cannot face the eye are left out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldpack_env.worlds import BackendUnavailable
from worldpack_env.worlds.node_packages import LIBRARIES
from worldpack_model.geometry import EYE_HEIGHT, VERTICAL_FOV, check_pose

VIEW_DISTANCE: Final = 64.0
"""Blocks after which fog hides everything."""
UNDER_WATER: Final = 14.0
"""The same with the eye in water."""
QUAD_BYTES: Final = 64
GROUPS: Final = 8
"""Groups of a column's faces: those that look to -y, +y, -z, +z, -x, +x, any other way, and water."""
VERTEX: Final = np.dtype([("xyz", "<i2", 3), ("tile", "<u2"), ("rgba", "u1", 4), ("uv", "u1", 2), ("unused", "u1", 2)])
_UNIT: Final = 128.0
"""Parts of a block in which vertices are counted."""
_WATER: Final = 7
_NEAR: Final = 0.05
_FINE: Final = 256 * 256
"""Pixels up to which a picture is drawn twice as large and then averaged; Mesa's own multisampling takes three times as long."""
_TILE: Final = 16
_MOST_QUADS: Final = 2**15
"""Most quads of one group of one column."""

_SKY_VERTEX: Final = """
#version 430
in vec2 corner;
out vec3 ray;
uniform mat3 axes;  // rows: right, up and forward of the camera
uniform vec2 half_size;  // of the picture, one block before the eye
void main() {
    ray = vec3(corner * half_size, 1.0) * axes;
    gl_Position = vec4(corner, 0.0, 1.0);
}
"""
_SKY_FRAGMENT: Final = """
#version 430
in vec3 ray;
out vec4 colour;
uniform vec3 fog_colour;
uniform vec3 zenith;
void main() {
    colour = vec4(mix(fog_colour, zenith, smoothstep(0.0, 0.45, normalize(ray).y)), 1.0);
}
"""
_BLOCK_VERTEX: Final = """
#version 430
in ivec3 xyz;
in uint tile;
in vec4 rgba;
in uvec2 uv;
out vec3 from_eye;
out vec3 texel;
out vec3 tint;
uniform vec3 eye;
uniform mat3 axes;
uniform vec2 half_size;
uniform vec2 range;  // near, far
void main() {
    from_eye = vec3(xyz) / 128.0 - eye;
    vec3 seen = axes * from_eye;
    texel = vec3(vec2(uv) / 128.0, float(tile));
    tint = rgba.rgb;
    float depth = (seen.z * (range.y + range.x) - 2.0 * range.x * range.y) / (range.y - range.x);
    gl_Position = vec4(seen.xy / half_size, depth, seen.z);
}
"""
_BLOCK_FRAGMENT: Final = """
#version 430
in vec3 from_eye;
in vec3 texel;
in vec3 tint;
out vec4 colour;
uniform sampler2DArray atlas;  // colours times alpha
uniform vec3 fog_colour;
uniform vec2 fog;  // where it begins, where it hides everything
uniform float cut;  // less alpha than this is a hole
void main() {
    vec4 found = texture(atlas, texel);
    if (found.a < cut) discard;
    float mist = clamp((length(from_eye) - fog.x) / (fog.y - fog.x), 0.0, 1.0);
    colour = vec4(mix(found.rgb / found.a * tint, fog_colour, mist), found.a);
}
"""
_FOG: Final = (192 / 255, 216 / 255, 1.0)
_ZENITH: Final = (120 / 255, 167 / 255, 1.0)
_WATER_FOG: Final = (26 / 255, 66 / 255, 150 / 255)


class _Device:
    """The OpenGL context of this process; its users take turns, from whichever thread."""

    _made: dict[int, _Device] = {}
    _guard = threading.Lock()

    def __init__(self) -> None:
        try:
            import moderngl
        except ImportError:
            raise BackendUnavailable("The minecraft world cannot draw: moderngl is missing; run: pip install 'worldpack-env[minecraft]'") from None
        try:
            maker: Any = moderngl.create_standalone_context  # its annotations are not of what it takes
            self.context: Any = maker(backend="egl", require=430)
        except Exception as error:  # moderngl raises plain Exception where libEGL or a driver is missing
            reason = f"OpenGL 4.3 through EGL is not to be had ({error})"
            raise BackendUnavailable(f"The minecraft world cannot draw: {reason}; run: {LIBRARIES}") from None
        self.lock = threading.RLock()
        self.sky: Any = self.context.program(vertex_shader=_SKY_VERTEX, fragment_shader=_SKY_FRAGMENT)
        self.blocks: Any = self.context.program(vertex_shader=_BLOCK_VERTEX, fragment_shader=_BLOCK_FRAGMENT)
        corners = np.array([-1, -1, 3, -1, -1, 3], np.float32)  # one triangle that covers the picture
        self.screen = self.context.vertex_array(self.sky, [(self.context.buffer(corners), "2f4", "corner")])
        first = 4 * np.arange(_MOST_QUADS, dtype=np.uint32)[:, None]
        self.indices = self.context.buffer(np.ascontiguousarray(first + np.array([0, 1, 2, 2, 1, 3], np.uint32)))
        self.description: str = self.context.info["GL_RENDERER"]
        self.context.__exit__(None, None, None)  # a context that stays current in this thread could not be used in another

    @classmethod
    def get(cls) -> _Device:
        """This process's device, made when it is first asked for."""
        with cls._guard:
            if os.getpid() not in cls._made:
                cls._made.clear()  # a forked copy cannot use its parent's
                cls._made[os.getpid()] = cls()
            return cls._made[os.getpid()]

    @contextmanager
    def current(self) -> Iterator[Any]:
        """Makes the context this thread's for a while."""
        with self.lock, self.context:
            yield self.context


def device_description() -> str:
    """Name of what draws, such as ``llvmpipe (LLVM 15.0.6, 256 bits)``.

    Raises:
        BackendUnavailable: if moderngl or EGL are missing; the message says what to install.
    """
    return _Device.get().description


class MeshRenderer:
    """Draws one world's meshes from any pose.

    Args:
        size: (height, width) of the pictures in pixels.
        atlas: ``(512, 512, 4) uint8`` RGBA, tiles of 16 x 16 pixels.

    Raises:
        BackendUnavailable: if moderngl or EGL are missing; the message says what to install.
        ValueError: if the atlas does not have that form.
    """

    def __init__(self, size: tuple[int, int], atlas: NDArray[np.uint8]) -> None:
        if atlas.ndim != 3 or atlas.shape[2] != 4 or atlas.dtype != np.uint8 or atlas.shape[0] % _TILE or atlas.shape[1] % _TILE:
            raise ValueError(f"atlas is {atlas.shape} {atlas.dtype}, expected (16 n, 16 m, 4) uint8.")
        self.size = size
        self._device = _Device.get()
        self._used = 0
        self._first = np.zeros(0, np.int64)
        self._count = np.zeros(0, np.int64)
        self._group = np.zeros(0, np.int64)
        self._name = np.zeros(0, np.int64)
        self._low = np.zeros((0, 3))
        self._high = np.zeros((0, 3))
        rows, columns = atlas.shape[0] // _TILE, atlas.shape[1] // _TILE
        tiles = atlas.reshape(rows, _TILE, columns, _TILE, 4).swapaxes(1, 2).reshape(-1, _TILE, _TILE, 4).astype(np.float64)
        tiles[..., :3] *= tiles[..., 3:] / 255.0  # so that smaller copies of a tile take no colour from its holes
        height, width = size
        self._scale = 2 if 4 * height * width <= _FINE else 1
        with self._device.current() as context:
            self._atlas = context.texture_array((_TILE, _TILE, len(tiles)), 4, np.ascontiguousarray(np.round(tiles).astype(np.uint8)))
            self._atlas.build_mipmaps(0, 4)
            self._atlas.filter = (context.LINEAR_MIPMAP_LINEAR, context.NEAREST)
            self._atlas.repeat_x = self._atlas.repeat_y = False
            canvas = (width * self._scale, height * self._scale)
            self._canvas = context.framebuffer(context.renderbuffer(canvas, 4), context.depth_renderbuffer(canvas))
            self._vertices: Any = None
            self._array: Any = None
            self._commands: Any = context.buffer(reserve=20 * 4096)
            self._reserve(context, 2**21)

    def clear(self) -> None:
        """Forgets all meshes."""
        self._used = 0
        self._keep(np.zeros(len(self._first), np.bool_))

    def drop(self, name: int) -> None:
        """Forgets the meshes that were added under a name; the room that they took is free again after :meth:`clear` only."""
        self._keep(self._name != name)

    @property
    def quads(self) -> int:
        """Quads that it holds room for, those dropped since it was last cleared among them."""
        return self._used

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        self._first, self._count, self._group, self._name = self._first[kept], self._count[kept], self._group[kept], self._name[kept]
        self._low, self._high = self._low[kept], self._high[kept]

    def add(self, counts: ArrayLike, quads: bytes, names: ArrayLike | None = None) -> None:
        """Adds meshes of columns.

        Args:
            counts: ``(n, 8)`` quads in each group of each column.
            quads: ``n`` columns one after the other, 64 bytes a quad; see ``node/mesh.js``.
            names: ``(n,)`` whole numbers to :meth:`drop` the columns by; 0 for all without them.

        Raises:
            ValueError: if the two do not fit, or a group is too large.
        """
        sizes = np.asarray(counts, np.int64)
        if sizes.ndim != 2 or sizes.shape[1] != GROUPS or (sizes < 0).any() or sizes.sum() * QUAD_BYTES != len(quads):
            raise ValueError(
                f"counts {sizes.shape} of {int(sizes.sum())} quads do not fit {len(quads)} bytes; expected (n, {GROUPS}), 64 bytes a quad."
            )
        if (sizes > _MOST_QUADS).any():
            raise ValueError(f"a group of faces has {int(sizes.max())} quads, at most {_MOST_QUADS} can be drawn.")
        group = np.tile(np.arange(GROUPS), len(sizes))
        name = np.repeat(np.zeros(len(sizes), np.int64) if names is None else np.asarray(names, np.int64), GROUPS)
        flat = sizes.reshape(-1)
        first = np.concatenate([[0], np.cumsum(flat)[:-1]])
        kept = flat > 0
        if not kept.any():
            return
        corners = np.frombuffer(quads, VERTEX)["xyz"].reshape(-1, 4, 3)
        starts = first[kept]
        self._low = np.concatenate([self._low, np.minimum.reduceat(corners.min(axis=1), starts) / _UNIT])
        self._high = np.concatenate([self._high, np.maximum.reduceat(corners.max(axis=1), starts) / _UNIT])
        self._first = np.concatenate([self._first, self._used + starts])
        self._count = np.concatenate([self._count, flat[kept]])
        self._group = np.concatenate([self._group, group[kept]])
        self._name = np.concatenate([self._name, name[kept]])
        with self._device.current() as context:
            self._reserve(context, (self._used + len(corners)) * QUAD_BYTES)
            self._vertices.write(quads, offset=self._used * QUAD_BYTES)
        self._used += len(corners)

    def render(self, pose: ArrayLike, *, under_water: bool = False) -> NDArray[np.uint8]:
        """The picture from a pose.

        Args:
            pose: ``(5,)``; the eye is 1.62 blocks above its feet.
            under_water: the eye is in water.

        Returns:
            ``(H, W, 3) uint8`` RGB.
        """
        p = check_pose(pose)
        eye = p[:3] + np.array([0.0, EYE_HEIGHT, 0.0])
        height, width = self.size
        tangent = float(np.tan(np.radians(VERTICAL_FOV) / 2.0))
        half = (tangent * width / height, tangent)
        axes = _axes(p)
        far = UNDER_WATER if under_water else VIEW_DISTANCE
        solid, water = self._visible(eye, axes, half, far)
        device = self._device
        fog_colour = _WATER_FOG if under_water else _FOG
        with device.current() as context:
            self._canvas.use()
            self._canvas.clear(depth=1.0)
            for program in (device.sky, device.blocks):
                program["axes"].write(np.ascontiguousarray(axes.T, np.float32))
                program["half_size"].value = half
                program["fog_colour"].value = fog_colour
            device.sky["zenith"].value = _WATER_FOG if under_water else _ZENITH
            context.disable(context.DEPTH_TEST | context.CULL_FACE | context.BLEND)
            device.screen.render(context.TRIANGLES)
            blocks = device.blocks
            blocks["eye"].value = tuple(eye)
            blocks["range"].value = (_NEAR, far + 16.0)
            blocks["fog"].value = (0.0, far) if under_water else (0.75 * far, far)
            blocks["cut"].value = 0.5
            self._atlas.use(0)
            context.depth_func = "<="
            context.enable(context.DEPTH_TEST | context.CULL_FACE)
            self._draw(context, solid)
            context.disable(context.CULL_FACE)
            context.enable(context.BLEND)
            context.blend_func = context.SRC_ALPHA, context.ONE_MINUS_SRC_ALPHA
            blocks["cut"].value = 0.01
            self._draw(context, water)
            data = self._canvas.read(components=3, alignment=1)
        drawn = np.frombuffer(data, np.uint8).reshape(height * self._scale, width * self._scale, 3)[::-1]
        if self._scale == 1:
            return np.ascontiguousarray(drawn)
        import cv2

        small: NDArray[np.uint8] = cv2.resize(np.ascontiguousarray(drawn), (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
        return small

    def release(self) -> None:
        """Frees what it holds in the graphics memory; may be called twice."""
        with self._device.current():
            for held in (self._array, self._vertices, self._commands, self._canvas, self._atlas):
                if held is not None:
                    held.release()
        self._array = self._vertices = self._commands = None

    def _visible(
        self, eye: NDArray[np.float64], axes: NDArray[np.float64], half: tuple[float, float], far: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Groups that can be seen: those of blocks from near to far, those of water from far to near."""
        low, high, group = self._low - eye, self._high - eye, self._group
        # A group whose faces look to -y is seen from below its highest one, and so on.
        seen = group >= 6
        for axis, way in ((1, 0), (2, 2), (0, 4)):
            seen |= (group == way) & (high[:, axis] > 0) | (group == way + 1) & (low[:, axis] < 0)
        middle, reach = 0.5 * (low + high), 0.5 * (high - low)
        nearest = np.maximum(np.abs(middle) - reach, 0.0)
        distance = (nearest**2).sum(axis=1)
        seen &= distance < far * far
        right, up, ahead = axes
        for plane in (half[0] * ahead + right, half[0] * ahead - right, half[1] * ahead + up, half[1] * ahead - up, ahead):
            seen &= middle @ plane + reach @ np.abs(plane) > 0.0
        found = np.flatnonzero(seen)
        found = found[np.argsort(distance[found], kind="stable")]
        water = group[found] == _WATER
        return found[~water], found[water][::-1]

    def _draw(self, context: Any, groups: NDArray[np.int64]) -> None:
        if not len(groups):
            return
        commands = np.zeros((len(groups), 5), np.uint32)  # indices, instances, first index, first vertex, first instance
        commands[:, 0] = 6 * self._count[groups]
        commands[:, 1] = 1
        commands[:, 3] = 4 * self._first[groups]
        if commands.nbytes > self._commands.size:
            self._commands.release()
            self._commands = context.buffer(reserve=2 * commands.nbytes)
        self._commands.write(commands)
        self._array.render_indirect(self._commands, context.TRIANGLES, len(groups))

    def _reserve(self, context: Any, size: int) -> None:
        """Makes room for ``size`` bytes of vertices."""
        if self._vertices is not None and size <= self._vertices.size:
            return
        larger = context.buffer(reserve=size if self._vertices is None else max(size, 2 * self._vertices.size))
        if self._vertices is not None:
            context.copy_buffer(larger, self._vertices, self._used * QUAD_BYTES)
            self._array.release()
            self._vertices.release()
        self._vertices = larger
        layout = [(larger, "3i2 1u2 4f1 2u1 2x1", "xyz", "tile", "rgba", "uv")]
        self._array = context.vertex_array(self._device.blocks, layout, index_buffer=self._device.indices, index_element_size=4)


def _axes(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """World directions of the camera's right, up and forward, as rows ``(3, 3)``."""
    yaw, pitch = np.radians(pose[3:])
    sy, cy, sp, cp = np.sin(yaw), np.cos(yaw), np.sin(pitch), np.cos(pitch)
    return np.array([[-cy, 0.0, -sy], [-sy * sp, cp, cy * sp], [-sy * cp, -sp, cy * cp]])
