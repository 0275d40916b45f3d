"""Figures of maps, checked on the figures themselves and on what files hold."""

from __future__ import annotations

import numpy as np

from sam_spl.report.maps import Panel, Plate, draw, save_plate

RAMP = np.linspace(-1, 3, 20).reshape(4, 5)


def plate(*rows) -> Plate:
    return Plate("maps", "Title", "how they were made", (30, 40), rows)


def shown(figure):
    """Title -> what is drawn there, of panels that hold a map."""
    return {axis.get_title(): axis for axis in figure.axes if axis.images and axis.get_title()}


def test_each_kind_has_the_range_that_it_states():
    figure = draw(
        plate(
            [Panel("a", RAMP, "feature", (32, 40)), Panel("b", RAMP, "change", (32, 40)), None],
            [
                Panel("c", RAMP, "share", (32, 40)),
                Panel("d", RAMP, "matrix"),
                Panel("e", RAMP, "image", (30, 40)),
            ],
        )
    )
    ranges = {title: axis.images[0].get_clim() for title, axis in shown(figure).items()}
    assert ranges == {"a": (-1, 3), "b": (-3, 3), "c": (0, 1), "d": (-1, 3), "e": (-1, 3)}


def test_panels_that_share_a_scale_have_one_and_others_their_own():
    figure = draw(
        plate(
            [Panel("a", RAMP, "feature", (30, 40), "x"), Panel("b", RAMP + 4, "feature", (30, 40), "x")],
            [Panel("c", RAMP + 9, "feature", (30, 40), "y"), Panel("d", RAMP, "feature", (30, 40))],
        )
    )
    ranges = {title: axis.images[0].get_clim() for title, axis in shown(figure).items()}
    assert ranges == {"a": (-1, 7), "b": (-1, 7), "c": (8, 12), "d": (-1, 3)}


def test_maps_lie_over_the_image_and_what_is_outside_is_not_shown():
    axes = shown(draw(plate([Panel("map", RAMP, "feature", (32, 40)), Panel("m", RAMP, "matrix")])))
    assert list(axes["map"].images[0].get_extent()) == [0, 40, 32, 0]
    assert (axes["map"].get_xlim(), axes["map"].get_ylim()) == ((0, 40), (30, 0))
    assert axes["m"].get_ylim() == (3.5, -0.5)


def test_channels_are_bars_of_their_values_with_a_legend():
    values = np.array([[1.0, -2.0, 3.0], [0.5, 0.0, -0.5]])
    (axis,) = draw(plate([Panel("shift", values, "channels", labels=("skip", "up"))])).axes
    heights = [bar.get_height() for container in axis.containers for bar in container]
    assert heights == values.ravel().tolist()
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["skip", "up"]


def test_files_are_of_their_format_and_pdf_has_fonts_that_journals_take(tmp_path):
    one = plate([Panel("$e_1$, stride 1", RAMP, "feature", (32, 40))])
    files = save_plate(one, tmp_path, "frame", ("png", "pdf", "svg"))
    assert [file.name for file in files] == ["frame_maps.png", "frame_maps.pdf", "frame_maps.svg"]
    png, pdf, svg = (file.read_bytes() for file in files)
    assert png.startswith(b"\x89PNG") and pdf.startswith(b"%PDF") and b"<svg" in svg
    assert b"/TrueType" in pdf or b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(file.name for file in files)


def test_a_tall_image_does_not_make_a_figure_that_no_page_holds():
    one = Plate("maps", "Title", "note", (4000, 20), [[Panel("a", RAMP, "feature", (4000, 20)), None]])
    assert max(draw(one).get_size_inches()) < 8
