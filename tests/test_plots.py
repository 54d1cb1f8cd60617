"""Pictures show the numbers they are about, and nothing is cut off at the figure's edge."""

from dataclasses import replace

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from gemm_lessons import plots
from gemm_lessons.measure.results import Measurement, Record
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.trace import Slice, Timeline
from gemm_lessons.workloads import WORKLOADS

STYLES = [plots.PAGE, plots.PROJECTOR]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def assert_everything_fits(figure: Figure) -> None:
    """What would be drawn, ticks outside the axes not counted, lies inside the figure."""
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert drawn.x0 >= -0.01
    assert drawn.y0 >= -0.01
    assert drawn.x1 <= width + 0.01
    assert drawn.y1 <= height + 0.01


def record() -> Record:
    found = Record({"device": "NVIDIA H100 80GB HBM3"}, "2026-01-02T03:04:05", "float32")
    found.problems["S"] = {"counts": [1, 2]}
    for name, kind, rate in (("tiled", "step", 20.0), ("torch.mm per expert", "peer", 25.0)):
        found.measurements.append(
            Measurement("S", name, kind, "ok", useful_tflops=rate, percent_of_roofline=rate * 2)
        )
    found.measurements.append(Measurement("S", "tiled", "padded twin", "ok", useful_tflops=15.0))
    found.measurements.append(Measurement("S", "broken", "step", "wrong", "NaN", useful_tflops=99.0))
    return found


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", ["S", "zipf", "no-tokens", "single-tokens"])
def test_padding_waste_fits_and_says_how_much(name, style):
    figure = plots.padding_waste(WORKLOADS[name].problem, style=style)
    assert_everything_fits(figure)
    assert any(text.startswith(f"{name}: ") and "% of the padded batch" in text for text in texts(figure))


def test_padding_waste_of_the_overview_is_the_known_number():
    figure = plots.padding_waste(WORKLOADS["overview"].problem)
    assert "overview: 37.5% of the padded batch is wasted" in texts(figure)
    assert {"150", "45", "200"} <= set(texts(figure))


@pytest.mark.parametrize("style", STYLES)
def test_the_ladder_shows_what_is_right_only_and_names_its_device(style):
    figure = plots.ladder(record(), "S", style=style)
    assert_everything_fits(figure)
    shown = texts(figure)
    assert {"tiled", "torch.mm per expert", "  20", "  25", "roofline 50 "} <= set(shown)
    assert not any("broken" in text or "99" in text for text in shown)
    assert any("NVIDIA H100 80GB HBM3, 2026-01-02" in text for text in shown)


def test_a_rate_of_four_digits_is_written_out():
    one = replace(record().measurements[0], useful_tflops=1097.8)
    assert "  1,098" in texts(plots.ladder(replace(record(), measurements=[one]), "S"))


def timeline(label: str, stop: float) -> Timeline:
    slices = (Slice(0, 0, 0, 0, 0, 100, 100 + stop), Slice(1, 1, 9, 0, 0, 100, 100 + stop / 2))
    return Timeline(slices, num_sms=2, unit="ns", label=label)


@pytest.mark.parametrize("style", STYLES)
def test_timelines_share_an_axis_and_tell_their_idle_tail(style):
    figure = plots.timelines([timeline("short", 1000), timeline("long", 2000)], "title", style=style)
    assert_everything_fits(figure)
    assert {"short: 1, idle tail 25.0%", "long: 2, idle tail 25.0%", "µs"} <= set(texts(figure))
    assert [axes.get_xlim() for axes in figure.axes] == [(0, 2)] * 2


def test_a_much_longer_timeline_is_cut_and_says_so():
    figure = plots.timelines([timeline("short", 1000), timeline("long", 90000)], "title")
    assert "long: 90 (cut off), idle tail 25.0%" in texts(figure)
    assert figure.axes[0].get_xlim() == (0, 1.5)


def test_an_empty_timeline_is_drawn():
    assert_everything_fits(plots.timelines([Timeline((), 4, "ns", "none")], "title"))


def test_the_same_picture_is_the_same_file(tmp_path):
    for name in ("a.svg", "b.svg"):
        plots.save(plots.padding_waste(GroupedProblem((1, 2), 4, 4)), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_projector_style_is_larger():
    assert plots.style(projector=True).size > plots.style().size
