"""Render settings are part of a data set's identity; wrong ones are refused by name."""

from __future__ import annotations

import dataclasses

import pytest

from rt2_jax.sim.render import RenderSettings, make_renderer


def test_the_default_needs_no_gl_library_and_is_64_pixels_a_side():
    settings = RenderSettings()
    assert (settings.renderer, settings.height, settings.width) == ("ray", 64, 64)
    assert make_renderer(settings).settings is settings


def test_settings_come_back_from_json_and_keep_their_hash():
    settings = RenderSettings(renderer="egl", height=128, width=96, antialias=False, shadows=False)
    again = RenderSettings.from_json(settings.to_json())
    assert again == settings and again.hash == settings.hash


@pytest.mark.parametrize(
    "change",
    [{"renderer": "egl"}, {"height": 65}, {"width": 65}, {"antialias": False}, {"shadows": False}],
    ids=str,
)
def test_every_setting_changes_the_hash(change):
    assert dataclasses.replace(RenderSettings(), **change).hash != RenderSettings().hash


def test_the_hash_does_not_drift():
    assert (
        RenderSettings().hash == "c89c8db029a402ec97b488655d1aebdaa546e25f40f3fdd9ff6d3d4325e8e3e6"
    )


def test_an_unknown_renderer_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(ValueError, match="found 'vulkan', expected one of ray, osmesa, egl"):
        RenderSettings(renderer="vulkan")


@pytest.mark.parametrize("side", ["height", "width"])
@pytest.mark.parametrize("pixels", [0, -64, 2049])
def test_a_side_that_is_not_positive_or_too_long_is_refused(side, pixels):
    with pytest.raises(ValueError, match=f"{side}: found {pixels} pixels, expected 1 to 2048"):
        RenderSettings(**{side: pixels})


def test_a_value_of_the_wrong_type_is_refused():
    with pytest.raises(TypeError, match=r"width: found 64\.0, expected int"):
        RenderSettings(width=64.0)
    with pytest.raises(TypeError, match="shadows: found 'no', expected bool"):
        RenderSettings(shadows="no")


def test_pictures_of_another_renderer_version_are_refused():
    old = {**RenderSettings().to_json(), "version": 0}
    with pytest.raises(
        ValueError, match="found pictures of renderer version 0, this package draws"
    ):
        RenderSettings.from_json(old)


def test_an_unknown_key_is_refused():
    with pytest.raises(KeyError, match="gamma"):
        RenderSettings.from_json({**RenderSettings().to_json(), "gamma": 2})
